"""django-oauth-toolkit, on gunicorn's workers of threads (settings.py, urls.py).

The work is that of a head-end at AGS in the words of OAuth: a client says who it is by its secret (HTTP
Basic) and gets an opaque token of the grant client_credentials.
"""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import repeat

from psycopg.conninfo import conninfo_to_dict

from bench.load import Conversation, post
from bench.systems import ROOT, WORKERS, Missing, Running, System, free_port, prepared, process

PACKAGE = "django-oauth-toolkit"
THREADS = 8
CLIENT_ID, CLIENT_SECRET = "bench", secrets.token_urlsafe(32)


def environment(database: str) -> dict[str, str]:
    """Return what its settings read."""
    address = conninfo_to_dict(database)
    return {
        "DJANGO_SETTINGS_MODULE": "bench.systems.oauth_toolkit.settings",
        "SECRET_KEY": secrets.token_urlsafe(48),
        "DATABASE_HOST": str(address["host"]),
        "DATABASE_NAME": str(address["dbname"]),
        "DATABASE_USER": str(address["user"]),
    }


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start it."""
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        raise Missing(f"{PACKAGE} is not installed: requirements/bench.txt") from None
    settings = environment(database)

    def manage(*words: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "django", *words],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], **settings},
            check=True,
            stdout=subprocess.DEVNULL,
        )

    manage("migrate", "--verbosity=0")
    # In its favour. Unless told otherwise it hashes the secret as Django hashes passwords, by PBKDF2, made to
    # be slow, and that is all that could be measured. A secret that is random does not need it.
    manage(
        *("createapplication", "confidential", "client-credentials", "--no-hash-client-secret"),
        *(f"--client-id={CLIENT_ID}", f"--client-secret={CLIENT_SECRET}"),
    )
    port = free_port()
    words = [
        *(sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()"),
        *(f"--bind=127.0.0.1:{port}", f"--workers={WORKERS}", f"--threads={THREADS}"),
        *("--worker-class=bench.systems.even.Worker", "--keep-alive=75", "--no-control-socket"),
    ]
    with process(words, settings, port) as running:
        yield running


def requests(_running: Running) -> Iterator[bytes]:
    """Yield requests for a token, without end: the secret is the same each time."""
    pair = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"}
    yield from repeat(
        post("/o/token/", b"grant_type=client_credentials", headers, "application/x-www-form-urlencoded")
    )


def client(asked: Iterable[bytes]) -> Conversation:
    """Ask for tokens, with these requests."""
    for request in asked:
        answer = yield request
        answer.demand(
            200,
            rb'^\{"access_token": "[A-Za-z0-9]{30}", "expires_in": 300, "token_type": "Bearer", '
            rb'"scope": "read write"\}$',
        )


OAUTH_TOOLKIT = System(
    name=PACKAGE,
    version=lambda: ", ".join(
        f"{name} {version(name)}" for name in (PACKAGE, "oauthlib", "django", "gunicorn")
    ),
    start=start,
    work={"getSessionToken": prepared(requests, client)},
    rows="SELECT count(*) FROM oauth2_provider_accesstoken",
)
