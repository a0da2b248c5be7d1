"""Storing how keys are used: counts of several processes are added, and none is lost."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from ags.database.clock import get_database_time
from ags.operations import key_use
from ags.operations.key_use import PERIOD, Count, KeyUseCounter, store_counts
from tenants.models import Key, KeyUse
from tests.support.batches import other_transaction
from tests.support.clients import HeadEnd
from tests.support.event_loop import open_application, run_in_event_loop, wait_until_async
from tests.support.key_use import add_key_use, sum_uses
from tests.support.operators import add_key
from tests.support.purge import purge_output, run_purge
from tests.support.waiting import PATIENCE


def key_of(head_end: HeadEnd) -> tuple[str, int]:
    return head_end.tenant_id, Key.objects.for_tenant(head_end.tenant_id).get(kid=head_end.kid).pk


def ages_of(row: KeyUse) -> tuple[float | None, float | None]:
    return row.min_age, row.max_age


@pytest.fixture
def one_period(monkeypatch: pytest.MonkeyPatch) -> None:
    """All counts are in one period, whenever the test runs."""
    monkeypatch.setattr(key_use, "PERIOD", 10_000_000_000.0)


def test_counts_are_added(nagra: HeadEnd, one_period: None) -> None:
    key = key_of(nagra)
    now = time.monotonic()
    store_counts({key: Count(2, 1, now - 5, now - 9)})
    (row,) = KeyUse.unscoped.all()
    assert (row.accepted, row.refused, *ages_of(row)) == (2, 1, None, None)
    before = row.accepted_at, row.refused_at
    for used_at, seconds in zip(before, (5, 9), strict=True):
        assert used_at
        assert timedelta(seconds=seconds) <= get_database_time() - used_at < timedelta(minutes=1)
    store_counts({key: Count(3, 0, now, None, -1.5, 7.0)})
    store_counts({key: Count(0, 4, None, now - 50, 2.0, 9.0)})
    store_counts({key: Count(1, 0, now - 50, None)})
    (row,) = KeyUse.unscoped.all()
    assert (row.accepted, row.refused, *ages_of(row)) == (6, 5, -1.5, 9.0)
    assert row.accepted_at
    assert before[0] < row.accepted_at <= get_database_time()
    assert row.refused_at == before[1], "a later store of an earlier use"


def test_each_period_has_a_row(nagra: HeadEnd) -> None:
    key = key_of(nagra)
    add_key_use(nagra.kid, minutes=10, accepted=1)
    store_counts({key: Count(1)})
    _, row = KeyUse.unscoped.order_by("began_at")
    assert row.began_at.timestamp() % PERIOD == 0
    assert timedelta(0) <= get_database_time() - row.began_at < timedelta(seconds=PERIOD, minutes=1)


def test_keys_of_tenants_are_counted_separately(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    store_counts({key_of(nagra): Count(1), key_of(sunrise): Count(0, 2)})
    assert sum_uses(nagra.kid) == (1, 0)
    assert sum_uses(sunrise.kid, "sunrise") == (0, 2)


def test_a_key_of_another_tenant_or_that_does_not_exist_is_ignored(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    _, key_id = key_of(nagra)
    store_counts({("sunrise", key_id): Count(1), ("nagra", 0): Count(1), key_of(nagra): Count(1)})
    assert [(row.tenant_id, row.key_id, row.accepted) for row in KeyUse.unscoped.all()] == [
        ("nagra", key_id, 1)
    ]


@pytest.mark.django_db(transaction=True)
def test_counts_are_kept_until_they_can_be_stored(
    nagra: HeadEnd, one_period: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(nagra)
    attempts: list[int] = []

    def store(counts: Any) -> None:
        attempts.append(counts[key].accepted)
        if counts[key].accepted < 3:
            raise OperationalError
        store_counts(counts)

    async def test() -> None:
        async with open_application():
            counter = KeyUseCounter()
            for number in range(3):
                attempts.append(0)
                counter.add(*key, Count(1, 0, time.monotonic(), None, number, number))
                await wait_until_async(lambda: attempts[-1], "it is not tried")
            await counter.close()

    monkeypatch.setattr(key_use, "STORE_INTERVAL", 0.001)
    monkeypatch.setattr(key_use, "CLOSE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(key_use, "store_counts", store)
    run_in_event_loop(test())
    (row,) = KeyUse.unscoped.all()
    assert (row.accepted, *ages_of(row)) == (3, 0, 2), attempts


def test_old_periods_are_purged_but_not_the_last_use(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    for minutes in (10, 24 * 60, 49 * 60, 50 * 60):
        add_key_use(nagra.kid, minutes=minutes, accepted=minutes)
    other = HeadEnd("nagra", "other", bytes(range(1, 33)))
    add_key(other)
    add_key_use(other.kid, minutes=60 * 24 * 3, accepted=7)
    add_key_use(sunrise.kid, tenant_id="sunrise", minutes=60 * 24 * 400, accepted=1)
    add_key_use(sunrise.kid, tenant_id="sunrise", minutes=60 * 24 * 401, accepted=2)
    assert run_purge() == purge_output(uses=3)
    assert sum_uses(nagra.kid) == (10 + 24 * 60, 0)
    assert sum_uses(other.kid) == (7, 0)
    assert sum_uses(sunrise.kid, "sunrise") == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_many_keys_are_stored_in_batches(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure of a batch does not take back those before it, and what is left is stored later."""
    keys = [key_of(nagra)] + [("nagra", -number) for number in range(1, 10)]
    sizes: list[int] = []

    def store(counts: Any) -> None:
        sizes.append(len(counts))
        if len(sizes) == 2:
            raise OperationalError
        store_counts(counts)

    async def test() -> None:
        async with open_application():
            counter = KeyUseCounter()
            for key in keys:
                counter.add(*key, Count(1))
            await wait_until_async(lambda: len(sizes) == 2, "it is not tried")
            await counter.close()

    monkeypatch.setattr(key_use, "BATCH_SIZE", 4)
    monkeypatch.setattr(key_use, "CLOSE_TIMEOUT", PATIENCE)
    monkeypatch.setattr(key_use, "store_counts", store)
    run_in_event_loop(test())
    assert sizes == [4, 4, 4, 2]
    assert sum_uses(nagra.kid) == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_counts_that_are_lost_are_logged(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = key_of(nagra)
    release = threading.Event()

    def hang(counts: Any) -> None:
        release.wait(PATIENCE)

    async def test() -> None:
        async with open_application():
            counter = KeyUseCounter()
            counter.add(*key, Count(1))
            await counter.close()
            release.set()

    monkeypatch.setattr(key_use, "CLOSE_TIMEOUT", 0.05)
    monkeypatch.setattr(key_use, "store_counts", hang)
    run_in_event_loop(test())
    messages = [record.getMessage() for record in caplog.records if record.name == key_use.__name__]
    assert messages == ["use of keys may be lost"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_storing_does_not_wait_for_a_lock(nagra: HeadEnd) -> None:
    """Requests read the configuration on the same connection."""
    with other_transaction() as other:
        other.execute("LOCK TABLE tenants_keyuse IN SHARE MODE")
        with pytest.raises(OperationalError, match="lock timeout"):
            store_counts({key_of(nagra): Count(1)})
