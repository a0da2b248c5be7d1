"""Counts of dead and living rows, and warnings of a purge that does not keep up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now

from ags.operations import purge_counts, row_counts
from ags.operations.checks import check_purge
from ags.operations.lease import LeaseHolder, read_lease
from ags.operations.purge import purge
from ags.operations.purge_counts import KindStatus, read_purge_status
from ags.operations.row_counts import count_rows_if_due
from ags.sessions.models import Lease, PurgeCount, SessionToken
from tests.support.clients import HeadEnd
from tests.support.purge import add_events, add_session_tokens, run_purge


def no_pause(_seconds: float) -> None:
    return None


def count_again() -> None:
    Lease.objects.filter(name=row_counts.LEASE).update(due_at=Now())
    assert count_rows_if_due(no_pause)


def status_of(kind: str) -> KindStatus:
    return read_purge_status().kinds[kind]


def warnings() -> list[str | None]:
    return [message.id for message in check_purge(databases=["default"])]


@pytest.mark.parametrize("chunk", [3, 7, 1000])
def test_dead_and_living_rows_are_counted_in_chunks(
    nagra: HeadEnd, sunrise: HeadEnd, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(row_counts, "CHUNK", chunk)
    add_session_tokens(nagra, 7, seconds=60)
    add_session_tokens(sunrise, 5, seconds=60)
    add_session_tokens(nagra, 4, seconds=-60)
    add_events(None, 6, seconds=60)
    SessionToken.unscoped.filter(tenant="sunrise").update(created_at=Now() - timedelta(days=31))  # all alike
    count_again()
    assert status_of("session tokens") == KindStatus(purged=0, dead=12, alive=4)
    assert status_of("guards without end") == KindStatus(purged=0, dead=0, alive=4), "of the same table"
    assert status_of("events").dead == 6
    assert run_purge().startswith("12 session tokens")
    assert status_of("session tokens") == KindStatus(purged=12, dead=12, alive=4), "counted before"
    count_again()
    assert status_of("session tokens") == KindStatus(purged=12, dead=0, alive=4)


def test_every_kind_of_the_purge_is_counted(nagra: HeadEnd) -> None:
    kinds = {kind for kind, _ in purge()}
    count_again()
    assert set(read_purge_status().kinds) == kinds


def test_rows_are_counted_every_ten_minutes(nagra: HeadEnd) -> None:
    assert count_rows_if_due(no_pause)
    assert not count_rows_if_due(no_pause)
    leases = Lease.objects.filter(name=row_counts.LEASE)
    leases.update(due_at=F("due_at") - timedelta(minutes=9))
    assert not count_rows_if_due(no_pause)
    leases.update(due_at=F("due_at") - timedelta(minutes=1))
    assert count_rows_if_due(no_pause)


def test_counts_of_kinds_that_are_no_longer_purged_are_forgotten(nagra: HeadEnd) -> None:
    PurgeCount.objects.create(kind="unused devices", purged=3, dead=20_000, alive=10)
    assert "operations.W009" in warnings()
    count_again()
    assert status_of("unused devices") == KindStatus(purged=3, dead=None, alive=None)
    assert "operations.W009" not in warnings()


@pytest.mark.django_db(transaction=True)
def test_a_count_that_fails_is_repeated_after_ten_minutes(nagra: HeadEnd) -> None:
    def fail(execute: Any, sql: str, *args: Any) -> Any:
        if "COUNT(" in sql.upper():
            raise OperationalError
        return execute(sql, *args)

    with connection.execute_wrapper(fail):
        with pytest.raises(OperationalError):
            count_rows_if_due(no_pause)
        assert not count_rows_if_due(no_pause), "it is not due yet"
    Lease.objects.filter(name=row_counts.LEASE).update(due_at=Now())
    assert count_rows_if_due(no_pause)


def test_counting_stops_with_the_process(nagra: HeadEnd) -> None:
    add_session_tokens(nagra, 1, seconds=60)
    assert not count_rows_if_due(lambda _seconds: True)
    assert not PurgeCount.objects.exists()
    assert count_rows_if_due(no_pause), "the lease was released"


@pytest.mark.parametrize(
    ("dead", "alive", "is_warned"),
    [(9999, 0, False), (10_000, 5000, False), (10_001, 5000, True), (0, 0, False)],
)
@pytest.mark.django_db
def test_dead_rows_of_more_than_twice_the_living_ones_are_warned_of(
    dead: int, alive: int, is_warned: bool
) -> None:
    assert warnings() == []
    PurgeCount.objects.create(kind="events", dead=dead, alive=alive, counted_at=Now())
    PurgeCount.objects.create(kind="session tokens", purged=3)
    assert warnings() == (["operations.W009"] if is_warned else [])
    if is_warned:
        (message,) = check_purge(databases=["default"])
        assert message.msg == "There are 10001 expired rows of events, more than 2 times the others."


def test_a_purge_that_has_not_succeeded_for_an_hour_is_warned_of(nagra: HeadEnd) -> None:
    assert warnings() == [], "nothing has ever purged"
    first = purge()
    next(first)
    assert warnings() == [], "the first one is running"
    Lease.objects.update(due_at=Now() - timedelta(minutes=59))
    assert warnings() == []
    Lease.objects.update(due_at=Now() - timedelta(minutes=60))
    assert warnings() == ["operations.W008"]
    assert read_purge_status().succeeded_at is None
    first.close()  # type: ignore[attr-defined] # a generator
    assert warnings() == ["operations.W008"], "it was interrupted"
    run_purge()
    assert warnings() == []
    assert read_purge_status().succeeded_at is not None


def test_a_purge_that_runs_for_long_succeeds_meanwhile(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ags.operations.lease.RENEWAL_INTERVAL", timedelta(0))
    add_session_tokens(nagra, 6, seconds=60)
    running = purge(2)
    next(running)
    Lease.objects.update(due_at=Now() - timedelta(hours=2))
    next(running)
    assert warnings() == []


def test_a_lease_is_asked_for_only_if_it_is_due(nagra: HeadEnd, django_assert_num_queries: Any) -> None:
    run_purge()
    with django_assert_num_queries(1):
        state = read_lease(purge_counts.LEASE)
        assert not LeaseHolder(purge_counts.LEASE).acquire_if_due(state)
    Lease.objects.update(due_at=Now() - timedelta(seconds=1))
    state = read_lease(purge_counts.LEASE)
    one, other = LeaseHolder(purge_counts.LEASE), LeaseHolder(purge_counts.LEASE)
    assert one.acquire_if_due(state)
    assert not other.acquire_if_due(state), "its state is stale"
    one.succeed(timedelta(minutes=1))
    one.release()
    assert not other.acquire_if_due(state), "its state is stale"


@pytest.mark.django_db
def test_the_check_command_reports_it(capsys: pytest.CaptureFixture[str]) -> None:
    LeaseHolder(purge_counts.LEASE).acquire()
    Lease.objects.update(due_at=Now() - timedelta(hours=2))
    call_command("check", databases=["default"], tags=["database"])
    assert "(operations.W008) No purge has succeeded for an hour." in capsys.readouterr().err
