"""Clients that disconnect while their request waits for pg statement: their rows are not stored."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from http.client import HTTPConnection

import psycopg
import pytest

from ags.sessions.models import SessionToken
from tests.support.clients import HeadEnd
from tests.support.database import database_url
from tests.support.live import get_server, wait_until_served
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER value that resets the connection on close."""

DISCONNECTED = 8
"""Number of clients that disconnect."""

LOCK = "LOCK TABLE ags_sessions_sessiontoken IN SHARE ROW EXCLUSIVE MODE"
WAITS = """
SELECT count(*) FROM pg_locks
 WHERE NOT granted AND relation = 'ags_sessions_sessiontoken'::regclass
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_numbers = itertools.count(1)


@pytest.fixture
def server(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server that logs each request."""
    return get_server(servers, "logging", AGS_LOG_LEVEL="INFO")


@pytest.mark.parametrize("resets", [True, False])
def test_rows_of_disconnected_clients_are_not_stored(
    server: ServerProcess, nagra: HeadEnd, resets: bool
) -> None:
    def post(account: str) -> HTTPConnection:
        """Send a valid request, and do not read the response."""
        client = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        body = {"parameters": [{"name": "OperatorAuthToken", "value": nagra.token(OpfAccountId=account)}]}
        headers = {"Content-Type": "application/json", **nagra.headers()}
        client.request("POST", "/ags/getSessionToken", json.dumps(body), headers)
        return client

    def disconnect(client: HTTPConnection) -> None:
        if resets:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()

    def wait_until_all_is_read() -> None:
        """Use a new connection, so that the server has read all earlier data."""
        client = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
        client.close()

    def stores_only_remaining_clients() -> bool:
        """Return False if the waiting statement timed out, so that the remaining client was not served."""
        attempt = f"attempt-{resets}-{next(_numbers)}-"
        logged = server.log.count('"disconnected"')
        with (
            psycopg.connect(database_url()) as pg,
            psycopg.connect(database_url(), autocommit=True) as other,
        ):
            pg.execute(LOCK)
            disconnected = [post(f"{attempt}in-flight")]
            wait_until(lambda: other.execute(WAITS).fetchone() == (1,), "no statement waits for the lock")
            disconnected += [post(f"{attempt}disconnected-{number}") for number in range(DISCONNECTED)]
            remaining = post(f"{attempt}remaining")
            wait_until_all_is_read()
            for client in disconnected:
                disconnect(client)
            wait_until(
                lambda: server.log.count('"disconnected"') == logged + len(disconnected),
                "the server does not detect the disconnected clients",
            )
        is_served = remaining.getresponse().status == 200
        remaining.close()
        if not is_served:
            return False
        rows = SessionToken.objects.for_tenant(nagra.tenant_id).filter(account_id__startswith=attempt)
        stored = set(rows.values_list("account_id", flat=True))
        assert f"{attempt}remaining" in stored
        assert stored <= {f"{attempt}in-flight", f"{attempt}remaining"}
        return True

    wait_until_served(server, nagra)
    wait_until(stores_only_remaining_clients, "the remaining client is not served")
