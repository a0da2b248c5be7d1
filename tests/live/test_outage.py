"""Outages of PostgreSQL under load: killed, stopped, frozen. The tests start their own PostgreSQL."""

from __future__ import annotations

import json
import math
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from ags.database.django_connections import TIMEOUTS
from ags.sessions.tokens.opaque import token_hashes
from tenants.snapshot import VERSIONS_MAX_AGE
from tests.support.clients import HeadEnd
from tests.support.fragile_postgresql import PostgreSQL
from tests.support.live import CREATE_OPERATOR, wait_until_served
from tests.support.server import Response, ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """PostgreSQL, migrated, with one operator."""
    pg = PostgreSQL()
    try:
        for command in (("migrate", "-v0"), ("shell", "-v0", "-c", CREATE_OPERATOR)):
            done = run_manage(*command, DATABASE_URL=pg.url)
            assert done.returncode == 0, done.stderr
        yield pg
    finally:
        pg.remove()


@pytest.fixture(scope="module")
def fragile_server(postgresql: PostgreSQL) -> Iterator[ServerProcess]:
    """A server on that PostgreSQL."""
    with ServerProcess(DATABASE_URL=postgresql.url) as server:
        yield server


@pytest.fixture
def head_end(fragile_server: ServerProcess) -> HeadEnd:
    """The head-end of the operator."""
    return HeadEnd("nagra", "nagra-key-1", bytes(range(1, 33)), client=fragile_server)


@dataclass
class Load:
    """The responses to a number of clients: client, time of request, time of response, response."""

    clients: int
    responses: list[tuple[int, float, float, Response]] = field(default_factory=list)
    probes: list[Response] = field(default_factory=list)

    def responses_between(self, start: float, end: float = math.inf) -> list[Response]:
        """Return the responses whose request and response are in that time."""
        return [
            response
            for _, sent, responded, response in self.responses.copy()
            if sent > start and responded < end
        ]

    def has_responses_for_each(self, times: int, *, after: float) -> bool:
        """Return True if each client has got `times` responses to requests sent after that time."""
        counts = Counter(client for client, sent, *_ in self.responses.copy() if sent > after)
        return len(counts) == self.clients and min(counts.values()) >= times


@contextmanager
def load(server: ServerProcess, head_end: HeadEnd, clients: int) -> Iterator[Load]:
    """Send requests continuously; every second client reconnects each time. Errors fail the test."""
    seen = Load(clients)
    stop = threading.Event()

    def present(number: int) -> None:
        client = server.client()
        here = replace(head_end, client=client)
        while not stop.is_set():
            sent = time.monotonic()
            response = here.present(here.token())
            seen.responses.append((number, sent, time.monotonic(), response))
            if response.status_code != 200:
                time.sleep(0.01)
            if number % 2 == 0:
                client.close()

    def probe() -> None:
        client = server.client()
        while not stop.is_set():
            seen.probes.append(client.get("/healthz"))
            time.sleep(0.02)

    with ThreadPoolExecutor(clients + 1) as pool:
        running = [pool.submit(present, number) for number in range(clients)]
        running.append(pool.submit(probe))
        try:
            yield seen
        finally:
            stop.set()
        for thread in running:
            thread.result(PATIENCE)


def is_unavailable_error(response: Response) -> bool:
    assert response.status_code == 503, response
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Retry-After"] == "1"
    assert response.json() == {
        "code": 50300,
        "reason": "unavailable",
        "message": "The service is temporarily unavailable. Retry later.",
        "correlationId": response.headers["x-correlation-id"],
    }
    return True


# How PostgreSQL stops.
FAILURES: dict[str, Callable[[PostgreSQL], Any]] = {
    "killed": lambda pg: pg.signal_all(signal.SIGKILL),
    "stopped immediately": lambda pg: pg.signal_postmaster(signal.SIGQUIT),
    "stopped in order": lambda pg: pg.signal_postmaster(signal.SIGINT),
}


@pytest.mark.parametrize("fail", FAILURES.values(), ids=FAILURES)
def test_outage_is_503_and_issued_tokens_are_stored(
    postgresql: PostgreSQL,
    fragile_server: ServerProcess,
    head_end: HeadEnd,
    fail: Callable[[PostgreSQL], None],
) -> None:
    with load(fragile_server, head_end, clients=6) as seen:
        wait_until(lambda: seen.has_responses_for_each(5, after=0), "no responses")
        fail(postgresql)
        wait_until(postgresql.is_gone, "PostgreSQL does not stop")
        gone = time.monotonic()
        # Requests do not wait for the end of the outage, neither with a fresh nor with an old snapshot.
        wait_until(lambda: seen.has_responses_for_each(3, after=gone + VERSIONS_MAX_AGE), "a request waits")
        assert is_unavailable_error(fragile_server.get("/readyz"))
        returning = time.monotonic()
        starter = threading.Thread(target=postgresql.start)
        starter.start()
        wait_until(postgresql.accepts_connections, "PostgreSQL does not restart")
        back = time.monotonic()
        wait_until(
            lambda: any(response.status_code == 200 for response in seen.responses_between(back)),
            "no success after the restart of PostgreSQL",
        )
        assert fragile_server.get("/readyz").status_code == 200
        served = time.monotonic()
        wait_until(lambda: seen.has_responses_for_each(5, after=served), "no responses after the outage")
        starter.join(PATIENCE)
        assert not starter.is_alive()

    assert all(is_unavailable_error(response) for response in seen.responses_between(gone, returning))
    for *_, response in seen.responses:
        assert response.status_code == 200 or is_unavailable_error(response)
    assert {response.status_code for response in seen.responses_between(served)} == {200}
    assert {probe.status_code for probe in seen.probes} == {200}
    issued = {
        token_hashes(response.json()["sessionToken"])[0]
        for *_, response in seen.responses
        if response.status_code == 200
    }
    assert issued
    assert issued <= postgresql.token_hashes()


@contextmanager
def listening_in_place_of(postgresql: PostgreSQL) -> Iterator[list[bytes]]:
    """Accept connections in place of PostgreSQL, record their first packets, and close them."""
    packets: list[bytes] = []
    parts = conninfo_to_dict(postgresql.url)
    path = Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                connection, _ = listener.accept()
                with connection:
                    packets.append(connection.recv(65536))
                    if not packets[-1]:
                        return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield packets
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join(PATIENCE)
            path.unlink()


def test_during_an_outage_only_the_probe_connects(
    postgresql: PostgreSQL, fragile_server: ServerProcess, head_end: HeadEnd
) -> None:
    def status() -> int:
        return int(head_end.present(head_end.token()).status_code)

    wait_until(lambda: status() == 200, "no responses")
    postgresql.signal_all(signal.SIGKILL)
    wait_until(postgresql.is_gone, "PostgreSQL does not stop")
    gone = time.monotonic()
    with listening_in_place_of(postgresql) as packets:
        while time.monotonic() < gone + VERSIONS_MAX_AGE:
            assert status() == 503
        assert {status() for _ in range(100)} == {503}
    orm_packets = [
        packet for packet in packets if f"lock_timeout={TIMEOUTS['lock_timeout']}".encode() in packet
    ]
    probe_packets = [packet for packet in packets if b"idle_in_transaction_session_timeout=" in packet]
    assert probe_packets
    assert len(orm_packets) <= 1, "only the first one, which detects the outage"
    assert len(probe_packets) + len(orm_packets) == len([packet for packet in packets if packet])
    postgresql.start()
    wait_until(lambda: status() == 200, "no success after the restart of PostgreSQL")


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    postgresql: PostgreSQL, fragile_server: ServerProcess, head_end: HeadEnd
) -> None:
    def status() -> int:
        return int(head_end.present(head_end.token()).status_code)

    def outage_lines(worker: int) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in fragile_server.log[logged:].splitlines())
        return [line for line in lines if line["logger"] == "ags.database" and line["process"] == worker]

    wait_until(lambda: status() == 200, "no responses")
    (worker,) = fragile_server.workers()
    logged = len(fragile_server.log)
    postgresql.signal_all(signal.SIGKILL)
    wait_until(postgresql.is_gone, "PostgreSQL does not stop")
    wait_until(lambda: status() == 503 and outage_lines(worker), "the outage is not logged")
    assert {status() for _ in range(20)} == {503}
    (began,) = outage_lines(worker)
    assert (began["level"], began["message"]) == ("ERROR", "the database is unavailable")
    assert "connection" in began["cause"]
    postgresql.start()
    wait_until(lambda: status() == 200, "no success after the restart of PostgreSQL")
    _, ended = outage_lines(worker)
    assert (ended["level"], ended["message"]) == ("WARNING", "the database is available again")
    assert ended["seconds"] >= 0
    refused = [line for line in fragile_server.log[logged:].splitlines() if '"status": 503' in line]
    assert {json.loads(line)["level"] for line in refused} == {"WARNING"}


def test_idle_connections_work_after_an_outage(postgresql: PostgreSQL, head_end: HeadEnd) -> None:
    # A server that has refused nothing: storing refusals would use the connections during the outage.
    with ServerProcess(DATABASE_URL=postgresql.url) as server:
        clients = [replace(head_end, client=server.client()) for _ in range(16)]

        def all_present() -> set[int]:
            with ThreadPoolExecutor(len(clients)) as pool:
                return set(pool.map(lambda here: here.present(here.token()).status_code, clients))

        def all_are_connected() -> bool:
            """Return True if there are connections for reads, for inserts and for the ORM."""
            statuses = {server.get("/readyz").status_code, *all_present()}
            return statuses == {200} and postgresql.count_connections() >= 3

        wait_until(all_are_connected, "the server does not keep its connections to the database")
        postgresql.signal_all(signal.SIGKILL)
        wait_until(postgresql.is_gone, "PostgreSQL does not stop")
        postgresql.start()
        wait_until(postgresql.accepts_connections, "PostgreSQL does not restart")
        # The process may have noticed the outage without a request.
        wait_until(lambda: server.get("/readyz").status_code == 200, "the server does not get ready")
        assert all_present() == {200}


def test_frozen_postgresql_is_503(
    postgresql: PostgreSQL, fragile_server: ServerProcess, head_end: HeadEnd
) -> None:
    # Many clients: they must not wait one after another.
    with load(fragile_server, head_end, clients=24) as seen:
        wait_until(lambda: seen.has_responses_for_each(4, after=0), "no responses")
        postgresql.signal_all(signal.SIGSTOP)
        try:
            wait_until(postgresql.is_frozen, "PostgreSQL does not stop")
            frozen = time.monotonic()
            # Each client gets several responses while PostgreSQL is frozen.
            wait_until(lambda: seen.has_responses_for_each(2, after=frozen), "a request waits for PostgreSQL")
            thawing = time.monotonic()
        finally:
            postgresql.signal_all(signal.SIGCONT)
        wait_until(
            lambda: any(response.status_code == 200 for response in seen.responses_between(thawing)),
            "no success after PostgreSQL continues",
        )
        served = time.monotonic()
        wait_until(lambda: seen.has_responses_for_each(2, after=served), "no responses after the outage")

    assert all(is_unavailable_error(response) for response in seen.responses_between(frozen, thawing))
    for *_, response in seen.responses:
        assert response.status_code == 200 or is_unavailable_error(response)
    assert {probe.status_code for probe in seen.probes} == {200}


def test_refusals_during_an_outage_are_stored_after_it(postgresql: PostgreSQL, head_end: HeadEnd) -> None:
    with ServerProcess(DATABASE_URL=postgresql.url) as server:  # one that has stored no refusal
        here = wait_until_served(server, head_end)
        postgresql.signal_all(signal.SIGKILL)
        wait_until(postgresql.is_gone, "PostgreSQL does not stop")
        for number in range(20):
            assert here.present(here.token(), x_correlation_id=f"failed-{number}").status_code == 503
            assert here.post("{", x_correlation_id=f"refused-{number}").status_code == 400
        postgresql.start()
        wait_until(postgresql.accepts_connections, "PostgreSQL does not restart")
        expected = Counter({("nagra", "failed"): 20, ("nagra", "refused"): 20})
        wait_until(lambda: postgresql.count_events("failed-", "refused-") == expected, "events are missing")
