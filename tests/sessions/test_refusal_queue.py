"""The queue of refused requests: its limits, and what is only counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from django.db import connection

from ags.database import run_with_orm
from ags.limits import memory
from ags.sessions.models import Event
from ags.sessions.services import refusals
from ags.sessions.services.refusals import (
    MAX_PER_ADDRESS,
    MAX_PER_MINUTE,
    MAX_QUEUED,
    RefusalQueue,
    get_refusal_queue,
    omitted_refusals,
    refusal_queues,
)
from tenants.models import Tenant
from tests.support.audit_trail import sum_omitted
from tests.support.batches import OtherTransaction
from tests.support.clients import HeadEnd
from tests.support.clock import StoppedClock
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    """The clock of the counters."""
    clock = StoppedClock()
    monkeypatch.setattr(memory, "time", clock)
    monkeypatch.setattr(refusals, "CLOSE_TIMEOUT", PATIENCE)
    return clock


@pytest.fixture
def omitted() -> Iterator[list[int]]:
    """The number of refusals that were only counted during the test, as the metric has it."""
    number: list[int] = []
    before = omitted_refusals.total()
    yield number
    assert [omitted_refusals.total() - before] == number


@asynccontextmanager
async def open_queue() -> AsyncIterator[RefusalQueue]:
    async with open_application():
        refusal_queues.open()
        queue = get_refusal_queue()
        assert queue is not None
        try:
            yield queue
        finally:
            await refusal_queues.close()


def submit(queue: RefusalQueue, number: int, first: int = 0, client: str | None = None) -> None:
    """Submit refusals of different clients, or of one."""
    for index in range(first, first + number):
        queue.submit(Event(kind=Event.Kind.REFUSED, correlation_id=str(index)), client or str(index))


def count_stored() -> int:
    return Event.unscoped.filter(kind=Event.Kind.REFUSED).count()


def test_the_queue_has_a_maximum(omitted: list[int]) -> None:
    async def test() -> None:
        async with open_queue() as queue:
            submit(queue, MAX_QUEUED + 5)

    run_in_event_loop(test())
    assert (count_stored(), sum_omitted(None)) == (MAX_QUEUED, 5)
    stored = Event.unscoped.filter(kind=Event.Kind.REFUSED).order_by("pk")
    assert [int(event.correlation_id) for event in stored] == [*range(MAX_QUEUED)], "in their order"
    omitted.append(5)


def test_a_process_stores_only_so_many_refusals_in_a_minute(omitted: list[int], clock: StoppedClock) -> None:
    async def test() -> None:
        async with open_queue() as queue:
            for first in range(0, MAX_PER_MINUTE, MAX_QUEUED):
                submit(queue, MAX_QUEUED, first)
                await wait_until_async(lambda: not queue._events, "the refusals are not stored")
            submit(queue, 7, MAX_PER_MINUTE)
            clock.ahead = 60.0
            submit(queue, 7, MAX_PER_MINUTE + 7)

    run_in_event_loop(test())
    assert (count_stored(), sum_omitted(None)) == (MAX_PER_MINUTE + 7, 7)
    omitted.append(7)


def test_refusals_of_an_address_are_stored_again_after_a_minute(
    omitted: list[int], clock: StoppedClock
) -> None:
    async def test() -> None:
        async with open_queue() as queue:
            submit(queue, MAX_PER_ADDRESS + 2, client="192.0.2.1")
            clock.ahead = 59.9
            submit(queue, 1, client="192.0.2.1")
            submit(queue, 1, client="192.0.2.2")
            clock.ahead = 60.0
            submit(queue, 3, client="192.0.2.1")

    run_in_event_loop(test())
    assert (count_stored(), sum_omitted(None)) == (MAX_PER_ADDRESS + 1 + 3, 3)
    omitted.append(3)


@pytest.mark.postgresql
def test_what_is_omitted_is_stored_if_the_server_stops_while_refusals_are_stored(
    nagra: HeadEnd, other: OtherTransaction, omitted: list[int]
) -> None:
    Tenant.objects.filter(pk="nagra").update(max_failures_per_address=0)

    async def test() -> None:
        async with open_queue():
            other.execute("LOCK TABLE tenants_tenant IN ACCESS EXCLUSIVE MODE")
            for _ in range(MAX_PER_ADDRESS + 5):
                status, _ = await post_json("/ags/getSessionToken", {}, nagra.headers())
                assert status == 400
            await wait_until_async(other.waiting, "no refusal is stored")
            closing = asyncio.create_task(refusal_queues.close())
            await asyncio.sleep(0)
            other.pg.rollback()
            await closing

    run_in_event_loop(test())
    events = Event.objects.for_tenant("nagra")
    assert events.filter(kind=Event.Kind.REFUSED).count() == MAX_PER_ADDRESS, (
        "of the tenant, although this process had not read it"
    )
    assert sum_omitted(None) == 5
    omitted.append(5)


@pytest.mark.postgresql
@pytest.mark.usefixtures("long_time_limits")
def test_only_a_stopping_server_waits_for_a_lock_on_the_table(other: OtherTransaction) -> None:
    async def test() -> None:
        async with open_queue() as queue:
            other.execute("LOCK TABLE ags_sessions_event IN SHARE MODE")
            submit(queue, 3)
            flushing = asyncio.create_task(queue._flush())
            await wait_until_async(lambda: other.waiting() or flushing.done(), "it is not flushed")
            if waits := other.waiting():
                other.pg.rollback()  # otherwise the queue cannot be closed
            assert not waits
            await flushing
            assert len(queue._events) == 3
            closing = asyncio.create_task(refusal_queues.close())
            await wait_until_async(other.waiting, "a stopping server does not wait")
            other.pg.rollback()
            await closing

    run_in_event_loop(test())
    assert count_stored() == 3


@pytest.mark.postgresql
def test_refusals_stay_queued_while_the_database_is_read_only(omitted: list[int]) -> None:
    async def test() -> None:
        async with open_queue() as queue:
            await run_with_orm(set_read_only, "on")
            submit(queue, 3)
            await queue._flush()
            assert len(queue._events) == 3
            await run_with_orm(set_read_only, "off")

    run_in_event_loop(test())
    assert (count_stored(), sum_omitted(None)) == (3, 0)
    omitted.append(0)


def set_read_only(value: str) -> None:
    """Set it on the connection that stores refusals."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET default_transaction_read_only = {value}")
