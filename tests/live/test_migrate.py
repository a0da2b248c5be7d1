"""`manage.py migrate` on a busy server, while another transaction holds the locks of pg_dump."""

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

from tests.support.clients import HeadEnd
from tests.support.database import database_url
from tests.support.live import wait_until_served
from tests.support.server import ServerProcess, server_environment
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.postgresql

NEXT_VERSION = {"DJANGO_SETTINGS_MODULE": "tests.live.next_version_settings"}
LOCK_HOLDER = "held by pg_dump (pid "
LOCK_REPORT = f"a lock on ags_sessions_sessiontoken, {LOCK_HOLDER}"


@pytest.fixture
def next_version(transactional_db: None) -> Iterator[None]:
    """Undo the migrations of the next version afterwards."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX IF EXISTS of_next_version")
        cursor.execute("ALTER TABLE ags_sessions_sessiontoken DROP COLUMN IF EXISTS of_next_version")
        cursor.execute("DELETE FROM django_migrations WHERE name LIKE 'x00%'")


class Migrate:
    """A process of `manage.py migrate` of the next version."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._errors = folder / f"{time.monotonic_ns()}.txt"
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "migrate", "ags_sessions", *arguments],
                cwd=settings.BASE_DIR,
                env=server_environment(**NEXT_VERSION),
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )

    @property
    def errors(self) -> str:
        """The standard error output so far."""
        return self._errors.read_text()

    def reports(self, times: int, sentence: str = LOCK_HOLDER) -> Callable[[], bool]:
        """Return a function that checks if the output contains a text `times` times."""

        def has_reported() -> bool:
            assert self.process.poll() is None, self.errors
            return self.errors.count(sentence) >= times

        return has_reported

    def wait_for_attempt(self) -> None:
        """Wait until another attempt has started and failed."""
        times = self.errors.count("Not applied: ") + 2
        wait_until(self.reports(times, "Not applied: "), "it does not retry")


@pytest.fixture
def start(next_version: None, tmp_path: Path) -> Iterator[Callable[..., Migrate]]:
    """A function that starts a migration process; all are killed at the end."""
    started: list[Migrate] = []

    def start_migration(*arguments: str) -> Migrate:
        started.append(Migrate(tmp_path, *arguments))
        return started[-1]

    yield start_migration
    for migrate in started:
        migrate.process.kill()
        migrate.process.wait(PATIENCE)


@contextmanager
def dump() -> Iterator[None]:
    """Hold the locks of pg_dump in a transaction like that of pg_dump."""
    with psycopg.connect(database_url(), application_name="pg_dump") as pg:
        pg.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        pg.read_only = True
        names = pg.execute("SELECT format('%I', tablename) FROM pg_tables WHERE schemaname = 'public'")
        pg.execute(f"LOCK TABLE {', '.join(name for (name,) in names.fetchall())} IN ACCESS SHARE MODE")
        yield


@contextmanager
def load(server: ServerProcess, head_end: HeadEnd) -> Iterator[list[int]]:
    """Send requests continuously from four threads; yield the list of the statuses."""
    statuses: list[int] = []
    end = threading.Event()

    def present() -> None:
        here = replace(head_end, client=server.client())
        while not end.wait(0.05):  # leave the CPU to the migration
            statuses.append(here.present(here.token()).status_code)

    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(present) for _ in range(4)]
        try:
            yield statuses
        finally:
            end.set()
        for thread in threads:
            thread.result(PATIENCE)


def wait_for_responses(statuses: list[int], number: int = 40) -> None:
    """Wait for more responses."""
    enough = len(statuses) + number
    wait_until(lambda: len(statuses) >= enough, "no responses")


def is_undisturbed(statuses: list[int], action: Callable[[], None]) -> bool:
    """Return True if all responses during an action are 200. On a machine that stalls, retry."""
    first = len(statuses)
    action()
    wait_for_responses(statuses)
    return set(statuses[first:]) == {200}


def index_validity() -> list[bool]:
    """Return if the index of the next version is valid; an empty list if there is none."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid"
            " WHERE relname = 'of_next_version'"
        )
        return [valid for (valid,) in cursor.fetchall()]


def test_migration_that_waits_for_a_lock_does_not_disturb_requests(
    server: ServerProcess, nagra: HeadEnd, start: Callable[..., Migrate]
) -> None:
    here = wait_until_served(server, nagra)
    with load(server, here) as statuses:
        with dump():
            unlimited = start("x001")
            limited = start("x001", "--lock-retries", "1")
            wait_until(lambda: is_undisturbed(statuses, unlimited.wait_for_attempt), "attempts cause errors")
            wait_until(unlimited.reports(2, LOCK_REPORT), "the holder of the lock is not reported")
            assert limited.process.wait(PATIENCE) == 1
        assert unlimited.process.wait(PATIENCE) == 0, unlimited.errors
        wait_until(lambda: is_undisturbed(statuses, lambda: None), "requests fail")
    assert set(statuses) <= {200, 503}

    retry, end = limited.errors.splitlines()
    assert retry.startswith("Not applied: a lock")
    assert retry.endswith("Retry 1 of 1 in 1 s.")
    assert end.startswith("CommandError: Not applied: a lock")
    assert end.endswith("Wait until the holder has finished, or terminate it, and run migrate again.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT of_next_version FROM ags_sessions_sessiontoken")


@pytest.mark.full
def test_interrupted_index_is_built_again(
    server: ServerProcess, nagra: HeadEnd, start: Callable[..., Migrate]
) -> None:
    MigrationRecorder(connection).record_applied("ags_sessions", "x001_column")
    here = wait_until_served(server, nagra)
    with load(server, here) as statuses:
        with dump():
            interrupted = start()
            wait_until(interrupted.reports(1), "the holder of the lock is not reported")
            interrupted.process.send_signal(signal.SIGINT)
            interrupted.process.wait(PATIENCE)
            assert index_validity() == [False]
            again = start()
            wait_until(again.reports(1), "the holder of the lock is not reported")
            wait_until(lambda: is_undisturbed(statuses, lambda: None), "waiting causes errors")
        assert again.process.wait(PATIENCE) == 0, again.errors
    assert set(statuses) <= {200, 503}
    assert "Dropped the index of_next_version, which an interrupted migration left invalid." in again.errors
    assert index_validity() == [True]
