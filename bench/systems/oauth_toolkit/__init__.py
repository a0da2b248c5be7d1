"""django-oauth-toolkit, on the `gthread` worker of gunicorn (settings.py, urls.py).

The work is like that of a head-end at AGS: a client authenticates with its secret (HTTP Basic), and gets an
opaque token by the grant client_credentials.
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
from bench.systems import ROOT, WORKERS, Missing, Running, System, conversation_factory, free_port, process

PACKAGE = "django-oauth-toolkit"
THREADS = 8
CLIENT_ID, CLIENT_SECRET = "bench", secrets.token_urlsafe(32)


def environment(database: str) -> dict[str, str]:
    """Return the environment of its settings."""
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
    """Start the server. Raises `Missing`."""
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
    # By default, it hashes the secret with PBKDF2, like a password, which would take most of the time. A
    # random secret does not need that.
    manage(
        *("createapplication", "confidential", "client-credentials", "--no-hash-client-secret"),
        *(f"--client-id={CLIENT_ID}", f"--client-secret={CLIENT_SECRET}"),
    )
    port = free_port()
    words = [
        *(sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()"),
        *(f"--bind=127.0.0.1:{port}", f"--workers={WORKERS}", f"--threads={THREADS}"),
        *("--worker-class=bench.systems.balanced_worker.Worker", "--keep-alive=75", "--no-control-socket"),
    ]
    with process(words, settings, port) as running:
        yield running


def token_requests(_running: Running) -> Iterator[bytes]:
    """Yield requests for a token, which are all the same."""
    pair = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
    headers = {"Authorization": f"Basic {pair}"}
    yield from repeat(
        post("/o/token/", b"grant_type=client_credentials", headers, "application/x-www-form-urlencoded")
    )


def client(requests: Iterable[bytes]) -> Conversation:
    """Request access tokens."""
    for request in requests:
        answer = yield request
        answer.expect(
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
    work={"getSessionToken": conversation_factory(token_requests, client)},
    rows="SELECT count(*) FROM oauth2_provider_accesstoken",
)
