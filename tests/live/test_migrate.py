"""`manage.py migrate` beside a live server, while another transaction holds the locks of pg_dump."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder

from tests.conftest import HeadEnd
from tests.live.conftest import warm
from tests.live.server import ServerProcess, database_url, environment
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

NEXT_VERSION = {"DJANGO_SETTINGS_MODULE": "tests.live.next_version_settings"}
HOLDER = "held by pg_dump (pid "
HELD = f"a lock on ags_sessions_sessiontoken, {HOLDER}"


@pytest.fixture
def next_version(transactional_db: None) -> Iterator[None]:
    """Undo the migrations of the next version afterwards."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS of_next_version")
        cursor.execute("ALTER TABLE ags_sessions_sessiontoken DROP COLUMN IF EXISTS of_next_version")
        cursor.execute("DELETE FROM django_migrations WHERE name LIKE 'x00%'")


class Migrate:
    """`manage.py migrate` of the next version, as a process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._errors = folder / f"{time.monotonic_ns()}.txt"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "migrate", "ags_sessions", *arguments],
                cwd=settings.BASE_DIR,
                env=environment(**NEXT_VERSION),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def errors(self) -> str:
        """What it has written to standard error so far."""
        return self._errors.read_text()

    def waits(self, times: int, sentence: str = HOLDER) -> Callable[[], bool]:
        """Return what tells whether it has said that so often. It must not have ended."""

        def said() -> bool:
            assert self.process.poll() is None, self.errors
            return self.errors.count(sentence) >= times

        return said

    def attempts_twice(self) -> None:
        """Return when another attempt has begun and ended."""
        times = self.errors.count("Not applied: ") + 2
        wait_until(self.waits(times, "Not applied: "), "it does not retry")


@pytest.fixture
def start(next_version: None, tmp_path: Path) -> Iterator[Callable[..., Migrate]]:
    """Start migrations."""
    started: list[Migrate] = []

    def one(*arguments: str) -> Migrate:
        started.append(Migrate(tmp_path, *arguments))
        return started[-1]

    yield one
    for migrate in started:
        migrate.process.kill()
        migrate.process.wait(PATIENCE)


@contextmanager
def dump() -> Iterator[None]:
    """Hold the locks that pg_dump takes, in a transaction such as it has."""
    with psycopg.connect(database_url(), application_name="pg_dump") as its:
        its.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        its.read_only = True
        names = its.execute("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'")
        its.execute(f"LOCK TABLE {', '.join(name for (name,) in names.fetchall())} IN ACCESS SHARE MODE")
        yield


@contextmanager
def load(server: ServerProcess, head_end: HeadEnd) -> Iterator[list[int]]:
    """Present tokens from four threads all the while; yield the statuses of the answers so far."""
    statuses: list[int] = []
    end = threading.Event()

    def present() -> None:
        here = replace(head_end, client=server.client())
        while not end.wait(0.05):  # the processors are left to migrate
            statuses.append(here.present(here.token()).status_code)

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(present) for _ in range(4)]
        try:
            yield statuses
        finally:
            end.set()
        for thread in threads:
            thread.result(PATIENCE)


def more(statuses: list[int], number: int = 40) -> None:
    """Wait until so many more requests are answered."""
    enough = len(statuses) + number
    wait_until(lambda: len(statuses) >= enough, "requests are not answered")


def undisturbed(statuses: list[int], happens: Callable[[], None]) -> bool:
    """Whether all requests are answered with 200 while that happens.

    Where the machine stands still for longer than a request may wait, they are not: then look again.
    """
    first = len(statuses)
    happens()
    more(statuses)
    return set(statuses[first:]) == {200}


def indexes() -> list[bool]:
    """Whether the index of the next version is valid, if there is one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE relname = 'of_next_version'"
        )
        return [valid for (valid,) in cursor.fetchall()]


def test_all_requests_are_answered_while_a_migration_waits_for_a_dump(
    server: ServerProcess, nagra: HeadEnd, start: Callable[..., Migrate]
) -> None:
    here = warm(server, nagra)
    with load(server, here) as statuses:
        with dump():
            patient = start("x001")
            impatient = start("x001", "--lock-retries", "1")
            wait_until(lambda: undisturbed(statuses, patient.attempts_twice), "attempts refuse requests")
            wait_until(patient.waits(2, HELD), "it does not say for whom it waits")
            assert impatient.process.wait(PATIENCE) == 1
        assert patient.process.wait(PATIENCE) == 0, patient.errors
        wait_until(lambda: undisturbed(statuses, lambda: None), "requests are refused")
    assert set(statuses) <= {200, 503}

    retry, end = impatient.errors.splitlines()
    assert retry.startswith("Not applied: a lock")
    assert retry.endswith("Retry 1 of 1 in 1 s.")
    assert end.startswith("CommandError: Not applied: a lock")
    assert end.endswith("Wait until the holder has finished, or terminate it, and run migrate again.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT of_next_version FROM ags_sessions_sessiontoken")


@pytest.mark.full
def test_an_index_is_built_beside_a_dump_and_once_more_where_that_was_interrupted(
    server: ServerProcess, nagra: HeadEnd, start: Callable[..., Migrate]
) -> None:
    MigrationRecorder(connection).record_applied("ags_sessions", "x001_column")
    here = warm(server, nagra)
    with load(server, here) as statuses:
        with dump():
            interrupted = start()
            wait_until(interrupted.waits(1), "it does not say for whom it waits")
            interrupted.process.send_signal(signal.SIGINT)
            interrupted.process.wait(PATIENCE)
            assert indexes() == [False]
            again = start()
            wait_until(again.waits(1), "it does not say for whom it waits")
            wait_until(lambda: undisturbed(statuses, lambda: None), "its wait refuses requests")
        assert again.process.wait(PATIENCE) == 0, again.errors
    assert set(statuses) <= {200, 503}
    assert "Dropped the index of_next_version, which an interrupted migration left invalid." in again.errors
    assert indexes() == [True]
