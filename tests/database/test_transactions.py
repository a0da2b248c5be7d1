"""Transactions: atomic, and isolated from the statements of other requests."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest
from django.db import IntegrityError, InternalError

from ags.database import INSERTS, READS, UPDATES, threads
from ags.database.lane import Lane
from ags.database.outage import Outage
from ags.database.postgresql import PostgreSQL
from ags.database.threads import QueueTimeout
from tests.support.database import database_url
from tests.support.event_loop import run_in_event_loop, wait_until_async
from tests.support.postgresql import PID, TAKE_LOCK, Observer, fetch_value, run_with_lane
from tests.support.transactions import (
    COMMIT_FAILS,
    check_next_statement_commits,
    failing_transaction,
    get_committed,
    insert,
    insert_in_transaction,
)
from tests.support.waiting import PATIENCE

# Commit and rollback


@pytest.mark.postgresql
def test_transaction_is_committed_at_the_end_of_its_block(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1, 2)
            assert await opened.fetch_all("SELECT count(*) FROM numbers", {}) == [(2,)]
            assert get_committed(other) == []
        assert get_committed(other) == [1, 2]
        await check_next_statement_commits(lane, other)

    run_with_lane(test)


@pytest.mark.postgresql
def test_exception_rolls_back_and_keeps_the_connection(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        pid = await fetch_value(lane, PID)
        async with failing_transaction(lane) as opened:
            await insert(opened, 1)
        assert get_committed(other) == []
        await check_next_statement_commits(lane, other)
        assert await fetch_value(lane, PID) == pid

    run_with_lane(test)


@pytest.mark.postgresql
@pytest.mark.parametrize("is_caught", [False, True])
def test_transaction_with_a_failed_statement_raises_and_is_rolled_back(
    table: None, other: Observer, is_caught: bool
) -> None:
    async def use(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            with pytest.raises(IntegrityError) if is_caught else contextlib.nullcontext():
                await insert(opened, 1)

    async def test(lane: Lane) -> None:
        pid = await fetch_value(lane, PID)
        with pytest.raises(InternalError if is_caught else IntegrityError):
            await use(lane)
        assert get_committed(other) == []
        await check_next_statement_commits(lane, other)
        assert await fetch_value(lane, PID) == pid

    run_with_lane(test)


@pytest.mark.postgresql
def test_failed_commit_raises_and_stores_nothing(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        with pytest.raises(IntegrityError):
            await insert_in_transaction(lane, 1, COMMIT_FAILS)
        assert get_committed(other) == []
        await check_next_statement_commits(lane, other)

    run_with_lane(test)


# Cancellation


@pytest.mark.postgresql
def test_cancellation_between_statements_rolls_back(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        pid = await fetch_value(lane, PID)
        inserted = asyncio.Event()

        async def use() -> None:
            async with lane.transaction() as opened:
                await insert(opened, 1)
                inserted.set()
                await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(use())
        await inserted.wait()
        task.cancel()
        await check_next_statement_commits(lane, other)
        assert task.cancelled()
        assert get_committed(other) == []
        assert await fetch_value(lane, PID) == pid

    run_with_lane(test)


@pytest.mark.postgresql
def test_cancellation_during_a_statement_rolls_back(
    table: None, other: Observer, unlimited_time: None
) -> None:
    async def use(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            await opened.fetch_all(TAKE_LOCK, {})

    async def test(lane: Lane) -> None:
        other.hold_lock()
        task = asyncio.create_task(use(lane))
        await wait_until_async(other.is_waiting, "no statement waits for the lock")
        task.cancel()
        await check_next_statement_commits(lane, other)
        assert task.cancelled()
        assert not lane.outage.is_active
        other.release_lock()
        await wait_until_async(
            lambda: len(other.pids()) == 1, "the connection of the cancelled transaction stays open"
        )
        assert get_committed(other) == []

    run_with_lane(test)


@pytest.mark.postgresql
def test_cancelled_transaction_is_atomic(table: None, other: Observer) -> None:
    async def cancel_after(turns: int, lane: Lane, first: int) -> None:
        task = asyncio.create_task(insert_in_transaction(lane, first, first + 1))
        for _ in range(turns):
            await asyncio.sleep(0.0005)  # one iteration of the loop, which reads sockets
        task.cancel()
        await insert(lane, -first)
        assert -first in get_committed(other)

    async def test(lane: Lane) -> None:
        for turns in range(20):
            await cancel_after(turns, lane, 1000 + 2 * turns)
            new = Lane(Outage())  # cancelled while connecting
            await cancel_after(turns, new, 2000 + 2 * turns)
            await new.close()
        await wait_until_async(lambda: len(other.pids()) == 1, "connections of cancelled requests are kept")
        stored = {number for number in get_committed(other) if number > 0}
        assert {number ^ 1 for number in stored} == stored, "a transaction was stored partly"

    run_with_lane(test)


# Isolation


@pytest.mark.postgresql
def test_statements_are_not_executed_in_another_transaction(
    table: None, other: Observer, unlimited_time: None
) -> None:
    async def test(lane: Lane) -> None:
        async with failing_transaction(lane) as opened:
            await insert(opened, 1)
            waiting = [
                asyncio.create_task(insert(lane, 2)),
                asyncio.create_task(insert_in_transaction(lane, 3, 4)),
            ]
            await insert(opened, 5, 6, 7)
            assert not any(task.done() for task in waiting)
        await asyncio.gather(*waiting)
        assert get_committed(other) == [2, 3, 4]
        assert len(other.pids()) == 1

    run_with_lane(test)


@pytest.mark.postgresql
def test_queue_timeout(
    table: None, other: Observer, unlimited_time: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            with monkeypatch.context() as short:
                short.setattr(threads, "QUEUE_TIMEOUT", 0.05)
                with pytest.raises(QueueTimeout):
                    await insert(lane, 2)
                with pytest.raises(QueueTimeout):
                    await insert_in_transaction(lane, 3)
            late = asyncio.create_task(insert(lane, 4))
            await insert(opened, 5)
            assert not late.done()
        await late
        assert get_committed(other) == [1, 4, 5]
        await insert_in_transaction(lane, 6)
        await check_next_statement_commits(lane, other)

    run_with_lane(test)


@pytest.mark.postgresql
def test_reads_and_inserts_do_not_wait_for_a_blocked_update(
    table: None, other: Observer, unlimited_time: None
) -> None:
    async def test() -> None:
        database = PostgreSQL()
        other.execute("INSERT INTO numbers VALUES (1)")
        with psycopg.connect(database_url()) as holder:
            holder.execute("SELECT FROM numbers FOR UPDATE")
            update = asyncio.create_task(
                database.fetch_all("UPDATE numbers SET number = 2 RETURNING number", {}, UPDATES)
            )
            await wait_until_async(other.is_waiting, "the update does not wait")
            assert await database.fetch_all("SELECT number FROM numbers", {}, READS) == [(1,)]
            statement = "INSERT INTO numbers VALUES (3) RETURNING number"
            assert await database.fetch_all(statement, {}, INSERTS) == [(3,)]
            assert get_committed(other) == [1, 3]
            assert not update.done()
            holder.rollback()
        assert await update == [(2,)]
        await database.close()

    run_in_event_loop(test())
