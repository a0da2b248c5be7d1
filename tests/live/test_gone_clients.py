"""Clients that hang up while their request waits for its statement: nothing is stored for them."""

from __future__ import annotations

import itertools
import json
import socket
import struct
from http.client import HTTPConnection

import psycopg
import pytest

from ags.sessions.models import SessionToken
from tests.conftest import HeadEnd
from tests.live.conftest import started, warm
from tests.live.server import ServerProcess, database_url
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: to close is to reset."""

GONE = 8
"""Clients that hang up."""

LOCK = "LOCK TABLE ags_sessions_sessiontoken IN SHARE ROW EXCLUSIVE MODE"
WAITS = """
SELECT count(*) FROM pg_locks
 WHERE NOT granted AND relation = 'ags_sessions_sessiontoken'::regclass
   AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

_numbers = itertools.count(1)


@pytest.fixture
def server(transactional_db: None, servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server of one process that logs each request."""
    return started(servers, "logging", AGS_LOG_LEVEL="INFO")


@pytest.mark.parametrize("resets", [True, False])
def test_of_clients_that_hang_up_nothing_but_the_statement_in_flight_is_stored(
    server: ServerProcess, nagra: HeadEnd, resets: bool
) -> None:
    def post(account: str) -> HTTPConnection:
        """Post a good request, and do not read."""
        client = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        body = {"parameters": [{"name": "OperatorAuthToken", "value": nagra.token(OpfAccountId=account)}]}
        headers = {"Content-Type": "application/json", **nagra.headers()}
        client.request("POST", "/ags/getSessionToken", json.dumps(body), headers)
        return client

    def hang_up(client: HTTPConnection) -> None:
        if resets:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        client.close()

    def all_was_read() -> None:
        """Have a new connection be served, after what the server can read by now."""
        client = HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200
        client.close()

    def is_stored_only_for_who_stays() -> bool:
        """Return whether the client that stays was served, and PostgreSQL has not given up the wait."""
        attempt = f"attempt-{resets}-{next(_numbers)}-"
        noticed = server.log.count('"disconnected"')
        with (
            psycopg.connect(database_url()) as its,
            psycopg.connect(database_url(), autocommit=True) as other,
        ):
            its.execute(LOCK)
            gone = [post(f"{attempt}in-flight")]
            wait_until(lambda: other.execute(WAITS).fetchone() == (1,), "no statement waits for the lock")
            gone += [post(f"{attempt}gone-{number}") for number in range(GONE)]
            good = post(f"{attempt}good")
            all_was_read()
            for client in gone:
                hang_up(client)
            wait_until(
                lambda: server.log.count('"disconnected"') == noticed + len(gone),
                "the server does not notice who has gone",
            )
        is_served = good.getresponse().status == 200
        good.close()
        if not is_served:
            return False
        rows = SessionToken.objects.for_tenant(nagra.tenant_id).filter(account_id__startswith=attempt)
        stored = set(rows.values_list("account_id", flat=True))
        assert f"{attempt}good" in stored
        assert stored <= {f"{attempt}in-flight", f"{attempt}good"}
        return True

    warm(server, nagra)
    wait_until(is_stored_only_for_who_stays, "a client that stays is not served")
