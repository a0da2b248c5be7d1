"""The purge that runs by itself: its turns, its end, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now

from ags.operations.purge import BATCH_SIZE
from ags.operations.purge_counts import read_purge_status
from ags.sessions.models import Event, Lease, PurgeCount, SessionToken
from tests.support.clients import HeadEnd
from tests.support.live import continuous_requests, wait_until_served
from tests.support.purge import PURGE_OFTEN, add_events, add_session_tokens, purge_output
from tests.support.server import ServerProcess, run_manage
from tests.support.waiting import PATIENCE, wait_until

PAUSING = {**PURGE_OFTEN, "AGS_TEST_PURGE_PAUSE": str(10 * PATIENCE)}
"""After its first batch, the server does nothing until it is stopped or killed."""


def remaining() -> int:
    return SessionToken.unscoped.filter(account_id="x").count()


def purged(kind: str = "session tokens") -> int:
    return read_purge_status().kinds[kind].purged


def held_by(server: ServerProcess) -> bool:
    lease = Lease.objects.filter(name="purge", expires_at__gt=Now()).first()
    holders = [f"server process {pid} on " for pid in server.workers()]
    return lease is not None and lease.holder.startswith(tuple(holders))


@contextmanager
def in_a_pause(**changes: str) -> Iterator[ServerProcess]:
    """Run a server that has deleted one batch of session tokens, and holds its lease. Kill it at the end."""
    before = remaining()
    server = ServerProcess(**{**PAUSING, **changes}).__enter__()
    try:
        wait_until(lambda: remaining() < before, "the first batch is not deleted")
        assert held_by(server)
        yield server
    finally:
        server.kill()


def test_expired_rows_vanish_and_others_stay(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 250, seconds=60)
    add_session_tokens(nagra, 50, seconds=-3600)
    add_events(nagra.tenant_id, 30, seconds=60)
    with ServerProcess(AGS_WORKERS="2", **PURGE_OFTEN) as server:
        wait_until(lambda: remaining() == 50, "the session tokens are not deleted")
        wait_until(
            lambda: not Event.objects.for_tenant(nagra.tenant_id).filter(kind="refused").exists(),
            "the events stay",
        )
        add_session_tokens(nagra, 20, seconds=60)
        wait_until(lambda: remaining() == 50, "there is no second purge")
        wait_until(
            lambda: PurgeCount.objects.filter(kind="session tokens", alive__isnull=False).exists(),
            "the rows are not counted",
        )
        assert "purge failed" not in server.log
    status = read_purge_status()
    assert (purged(), purged("events")) == (270, 30)
    assert status.succeeded_at is not None
    assert not status.is_overdue


def test_one_of_two_servers_purges_at_a_time(transactional_db: None, nagra: HeadEnd) -> None:
    """The second one finds the lease held, and takes over when the first one stops."""
    add_session_tokens(nagra, 5 * BATCH_SIZE, seconds=60)
    with in_a_pause() as first, ServerProcess(**PURGE_OFTEN) as second:
        for _ in range(10):  # the second one asks several times meanwhile, unless the machine is slow
            wait_until_served(second, nagra)
            time.sleep(0.1)
        assert held_by(first)
        assert remaining() == 4 * BATCH_SIZE
        first.stop()
        wait_until(lambda: remaining() == 0, "the second server does not take over")
    assert purged() == 5 * BATCH_SIZE, "each row once"


def test_the_lease_of_a_killed_server_expires(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 5 * BATCH_SIZE, seconds=60)
    with in_a_pause(AGS_TEST_LEASE="5"):
        pass
    expires_at = Lease.objects.get(name="purge").expires_at
    with ServerProcess(**PURGE_OFTEN):
        wait_until(lambda: remaining() == 0, "nothing takes over")
    assert Lease.objects.get(name="purge").acquired_at >= expires_at
    assert purged() == 5 * BATCH_SIZE


def test_off_purges_nothing(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 10, seconds=60)
    with ServerProcess(**{**PURGE_OFTEN, "AGS_PURGE": "off"}) as off:
        with ServerProcess(**PURGE_OFTEN):
            wait_until(lambda: remaining() == 0, "the other server does not purge")
        Lease.objects.all().delete()
        add_session_tokens(nagra, 10, seconds=60)
        for _ in range(10):
            wait_until_served(off, nagra)
            time.sleep(0.1)
    assert remaining() == 10
    assert not Lease.objects.exists()


def test_a_server_stops_in_a_pause_of_its_purge(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 5 * BATCH_SIZE, seconds=60)
    with in_a_pause() as server:
        server.stop()  # fails after PATIENCE, a tenth of the pause
    assert remaining() == 4 * BATCH_SIZE
    assert purged() == BATCH_SIZE
    assert run_manage("purge").stdout.startswith(f"{4 * BATCH_SIZE} session tokens"), "it need not wait"
    assert purged() == 5 * BATCH_SIZE


@pytest.mark.postgresql
def test_a_server_stops_while_its_purge_waits_for_a_row(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 10, seconds=60)

    def waiting_for_a_lock() -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted")
            return cursor.fetchone() is not None

    with transaction.atomic():
        assert len(SessionToken.unscoped.select_for_update()) == 10
        with ServerProcess(AGS_TEST_LEASE="1", **PURGE_OFTEN):
            wait_until(waiting_for_a_lock, "it does not purge")
        # It has stopped. It fails after PATIENCE, for which its purge would wait.
    wait_until(lambda: not waiting_for_a_lock(), "the statement does not end")
    assert remaining() == 10
    assert "session tokens" not in read_purge_status().kinds
    with ServerProcess(**PURGE_OFTEN):
        wait_until(lambda: remaining() == 0, "nothing takes over")
    assert purged() == 10


@pytest.mark.postgresql  # SQLite has one writer, and does not let them take turns
def test_requests_are_served_during_a_purge(transactional_db: None, nagra: HeadEnd) -> None:
    with ServerProcess(**PURGE_OFTEN) as one, ServerProcess(**PURGE_OFTEN) as other:
        for server in (one, other):
            wait_until_served(server, nagra)
        with continuous_requests((one, other), nagra) as log:
            add_session_tokens(nagra, 2000, seconds=60)
            wait_until(lambda: remaining() == 0, "it does not purge")
    assert {(status, reason) for _, _, status, reason in log.responses} == {(200, None)}
    assert purged() == 2000


def test_the_command_waits_for_the_turn_of_a_server(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 3 * BATCH_SIZE, seconds=60)
    with ThreadPoolExecutor(1) as pool, in_a_pause() as server:
        command = pool.submit(run_manage, "purge")
        time.sleep(0.5)
        assert not command.done()
        server.stop()
        assert command.result().stdout == purge_output(2 * BATCH_SIZE)


@pytest.mark.postgresql
def test_a_kind_that_cannot_be_deleted_does_not_keep_others(transactional_db: None, nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 10, seconds=60)
    add_events(nagra.tenant_id, 10, seconds=60)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
            "CREATE TRIGGER refuse BEFORE DELETE ON ags_sessions_sessiontoken EXECUTE FUNCTION refuse();"
        )
        try:
            with ServerProcess(**PURGE_OFTEN) as server:
                wait_until(lambda: "purge failed" in server.log, "the failure is not logged")
                wait_until(
                    lambda: not Event.objects.for_tenant(nagra.tenant_id).filter(kind="refused").exists(),
                    "the events stay",
                )
                assert remaining() == 10
                assert read_purge_status().succeeded_at is None
                wait_until_served(server, nagra)
                assert server.log.count("purge failed") == 1
                line = next(line for line in server.log.splitlines() if "expired rows accumulate" in line)
                assert '"kind": "session tokens", "dead": 10, "alive": 0' in line
                assert "no purge has succeeded" not in server.log
                Lease.objects.filter(name="purge").update(due_at=Now() - timedelta(hours=1))
                wait_until(lambda: "no purge has succeeded for an hour" in server.log, "it does not warn")
                cursor.execute("DROP TRIGGER refuse ON ags_sessions_sessiontoken")
                wait_until(lambda: remaining() == 0, "it does not try again")
        finally:
            cursor.execute("DROP TRIGGER IF EXISTS refuse ON ags_sessions_sessiontoken; DROP FUNCTION refuse")
