"""Glewlwyd, an authorization server in C, as Debian packages it: client credentials with a secret."""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path

import psycopg

from bench.load import Conversation, post
from bench.systems import Missing, Running, System, conversation_factory, free_port, process

LIBRARIES = Path("/usr/lib/glewlwyd")
SCHEMA = Path("/usr/share/dbconfig-common/data/glewlwyd/install/pgsql")

CLIENT, SCOPE, PLUGIN = "bench", "bench", "oidc"
SECRET = secrets.token_urlsafe(32)

ANSWER = (
    rb'^{"access_token":"[\w-]+\.[\w-]+\.[\w-]{43}","token_type":"bearer","expires_in":3600,"scope":"bench"}$'
)

ROWS = "SELECT count(*) FROM gpo_access_token"
"""Counts the stored tokens."""


def client_module(database: str) -> dict[str, object]:
    """Return the settings of the module that reads clients.

    It gets a connection of its own. By default it uses that of the server, which all threads share, and waits
    while a token is being stored: a quarter of the throughput is lost.
    """
    one = {"read": True, "write": True}
    return {
        "use-glewlwyd-connection": False,
        "connection-type": "postgre",
        "postgre-conninfo": database,
        "data-format": {
            "client_secret": one,
            "authorization_type": {"multiple": True, **one},
            "token_endpoint_auth_method": {"multiple": True, **one},
        },
    }


def plugin(port: int) -> dict[str, str | int | bool]:
    """Return the settings of the OpenID Connect plugin; its authors advise against the one for OAuth only.

    HS256 is its cheapest signature.
    """
    return {
        "iss": f"http://127.0.0.1:{port}",
        "jwt-type": "sha",
        "jwt-key-size": "256",
        "key": secrets.token_urlsafe(32),
        "access-token-duration": 3600,
        "refresh-token-duration": 1209600,
        "code-duration": 600,
        "allow-non-oidc": True,
        "auth-type-client-enabled": True,
    }


def configuration(database: str, port: int) -> str:
    """Return its configuration (libconfig): that of the package, without what is not needed here."""
    return f"""
        bind_address = "127.0.0.1"
        port = {port}
        external_url = "http://127.0.0.1:{port}"
        api_prefix = "api"
        log_mode = "console"
        log_level = "WARNING"
        client_module_path = "{LIBRARIES}/client"
        user_module_path = "{LIBRARIES}/user"
        user_auth_scheme_module_path = "{LIBRARIES}/scheme"
        plugin_module_path = "{LIBRARIES}/plugin"
        database = {{ type = "postgre", conninfo = "{database}" }}
    """


def fill(database: str, port: int) -> None:
    """Create the tables, and the configuration of an administrator.

    Its API cannot be used, because the password of the administrator needs pgcrypto, which the PostgreSQL of
    the benchmark does not have.
    """
    with psycopg.connect(database) as connection:
        connection.execute(SCHEMA.read_bytes())
        connection.execute(
            "INSERT INTO g_client_module_instance (gcmi_module, gcmi_order, gcmi_name, gcmi_parameters)"
            " VALUES ('database', 0, 'database', %s)",
            (json.dumps(client_module(database)),),
        )
        connection.execute(
            "INSERT INTO g_plugin_module_instance (gpmi_module, gpmi_name, gpmi_parameters)"
            " VALUES ('oidc', %s, %s)",
            (PLUGIN, json.dumps(plugin(port))),
        )
        connection.execute("INSERT INTO g_scope (gs_name, gs_password_required) VALUES (%s, 0)", (SCOPE,))
        connection.execute("INSERT INTO g_client (gc_client_id, gc_confidential) VALUES (%s, 1)", (CLIENT,))
        connection.execute("INSERT INTO g_client_scope (gcs_name) VALUES (%s)", (SCOPE,))
        connection.execute(
            "INSERT INTO g_client_scope_client (gc_id, gcs_id)"
            " SELECT gc_id, gcs_id FROM g_client, g_client_scope"
        )
        for name, value in (
            ("client_secret", SECRET),
            ("authorization_type", "client_credentials"),
            ("token_endpoint_auth_method", "client_secret_basic"),
        ):
            connection.execute(
                "INSERT INTO g_client_property (gc_id, gcp_name, gcp_value)"
                " SELECT gc_id, %s, %s FROM g_client",
                (name, value),
            )


@contextmanager
def start(database: str) -> Iterator[Running]:
    """Start Glewlwyd. Raises `Missing`."""
    program = shutil.which("glewlwyd")
    if program is None or not SCHEMA.exists():
        raise Missing("Debian's package glewlwyd is not installed")
    port = free_port()
    fill(database, port)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "glewlwyd.conf"
        file.write_text(configuration(database, port))
        with process([program, f"--config-file={file}"], {}, port, Path(folder)) as running:
            yield running


def token_requests(_running: Running) -> Iterator[bytes]:
    """Yield the requests of a client, which are all the same."""
    credential = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
    return repeat(
        post(
            f"/api/{PLUGIN}/token",
            f"grant_type=client_credentials&scope={SCOPE}".encode(),
            {"Authorization": f"Basic {credential}"},
            "application/x-www-form-urlencoded",
        )
    )


def client(requests: Iterable[bytes]) -> Conversation:
    """Request access tokens."""
    for request in requests:
        answer = yield request
        answer.expect(200, ANSWER)


def version() -> str:
    """Return the version of the package."""
    words = ["dpkg-query", "--show", "--showformat=${Version}", "glewlwyd"]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


GLEWLWYD = System(
    name="Glewlwyd",
    version=version,
    start=start,
    work={"getSessionToken": conversation_factory(token_requests, client)},
    rows=ROWS,
)
