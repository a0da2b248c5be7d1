"""Transactions: atomic, and isolated from the statements of other requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import Error, IntegrityError, InternalError, OperationalError

from ags.database import INSERTS, READS, UPDATES, Transaction, threads
from ags.database import postgresql as module
from ags.database.django_database import DjangoDatabase
from ags.database.postgresql import Lane, Outage, PostgreSQL
from ags.database.threads import QueueTimeout, close_threads, open_threads
from ags.sessions.models import Lease
from tests.support.database import database_url
from tests.support.event_loop import run_in_event_loop, wait_until_async
from tests.support.postgresql import (
    LOCK,
    PID,
    TAKE_LOCK,
    WRITE,
    Observer,
    Proxy,
    fetch_error,
    fetch_value,
    run_with_lane,
)
from tests.support.waiting import PATIENCE

NEXT, COMMIT_FAILS, COMMIT_WAITS = 999, -1, 0
"""Numbers of rows: of the next statement; for which the commit fails; for which it waits for the lock."""


class Fault(Exception):
    """Raised by tests within a transaction."""


@pytest.fixture
def table(options: dict[str, Any]) -> Iterator[None]:
    """A table of numbers. `other` terminates open transactions before the table is dropped."""
    with psycopg.connect(database_url(), autocommit=True) as pg:
        pg.execute("CREATE TABLE numbers (number integer PRIMARY KEY)")
        pg.execute(
            f"""
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.number = {COMMIT_FAILS} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF;
  IF NEW.number = {COMMIT_WAITS} THEN PERFORM pg_advisory_xact_lock({LOCK}); END IF;
  RETURN NULL;
END $$"""
        )
        pg.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION at_commit()"
        )
        yield
        pg.execute("DROP TABLE numbers")
        pg.execute("DROP FUNCTION at_commit")


@pytest.fixture
def unlimited_time(no_timeouts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable all timeouts."""
    monkeypatch.setattr(threads, "QUEUE_TIMEOUT", PATIENCE)


async def insert(executor: Lane | Transaction, *numbers: int) -> None:
    for number in numbers:
        statement = "INSERT INTO numbers VALUES (%(number)s) RETURNING number"
        assert await executor.fetch_all(statement, {"number": number}) == [(number,)]


async def insert_in_transaction(lane: Lane, *numbers: int) -> None:
    async with lane.transaction() as opened:
        await insert(opened, *numbers)


@contextlib.asynccontextmanager
async def failing_transaction(database: Lane | DjangoDatabase) -> AsyncIterator[Transaction]:
    """Open a transaction whose block raises an exception."""
    try:
        async with database.transaction() as opened:
            yield opened
            raise Fault
    except Fault:
        return
    pytest.fail("the exception is lost")


def committed(other: Observer) -> list[int]:
    return other.execute("SELECT number FROM numbers ORDER BY number")


async def check_next_statement_commits(lane: Lane, other: Observer) -> None:
    """Check that the next statement on this lane is committed when it returns."""
    before = committed(other)
    await insert(lane, NEXT)
    assert committed(other) == [*before, NEXT]
    other.execute(f"DELETE FROM numbers WHERE number = {NEXT}")


# Commit and rollback


@pytest.mark.postgresql
def test_transaction_is_committed_at_the_end_of_its_block(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1, 2)
            assert await opened.fetch_all("SELECT count(*) FROM numbers", {}) == [(2,)]
            assert committed(other) == []
        assert committed(other) == [1, 2]
        await check_next_statement_commits(lane, other)

    run_with_lane(test)


@pytest.mark.postgresql
def test_exception_rolls_back_and_keeps_the_connection(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        pid = await fetch_value(lane, PID)
        async with failing_transaction(lane) as opened:
            await insert(opened, 1)
        assert committed(other) == []
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
        assert committed(other) == []
        await check_next_statement_commits(lane, other)
        assert await fetch_value(lane, PID) == pid

    run_with_lane(test)


@pytest.mark.postgresql
def test_failed_commit_raises_and_stores_nothing(table: None, other: Observer) -> None:
    async def test(lane: Lane) -> None:
        with pytest.raises(IntegrityError):
            await insert_in_transaction(lane, 1, COMMIT_FAILS)
        assert committed(other) == []
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
        assert committed(other) == []
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
        assert committed(other) == []

    run_with_lane(test)


@pytest.mark.postgresql
def test_cancelled_transaction_is_atomic(table: None, other: Observer) -> None:
    async def cancel_after(turns: int, lane: Lane, first: int) -> None:
        task = asyncio.create_task(insert_in_transaction(lane, first, first + 1))
        for _ in range(turns):
            await asyncio.sleep(0.0005)  # one iteration of the loop, which reads sockets
        task.cancel()
        await insert(lane, -first)
        assert -first in committed(other)

    async def test(lane: Lane) -> None:
        for turns in range(20):
            await cancel_after(turns, lane, 1000 + 2 * turns)
            new = Lane(Outage())  # cancelled while connecting
            await cancel_after(turns, new, 2000 + 2 * turns)
            await new.close()
        await wait_until_async(lambda: len(other.pids()) == 1, "connections of cancelled requests are kept")
        stored = {number for number in committed(other) if number > 0}
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
        assert committed(other) == [2, 3, 4]
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
        assert committed(other) == [1, 4, 5]
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
            assert committed(other) == [1, 3]
            assert not update.done()
            holder.rollback()
        assert await update == [(2,)]
        await database.close()

    run_in_event_loop(test())


# Lost connections


async def begin_on_a_terminated_connection(lane: Lane, other: Observer) -> None:
    pid = await fetch_value(lane, PID)
    # The loop is blocked, so it does not notice this.
    other.execute(f"SELECT pg_terminate_backend({pid}, {PATIENCE * 1000:.0f})")
    await insert_in_transaction(lane, 1)


async def terminate_while(waiting: Coroutine[Any, Any, Any], other: Observer) -> None:
    """Terminate the backend while the coroutine waits for the lock. Raises its errors."""
    task = asyncio.create_task(waiting)
    await wait_until_async(other.is_waiting, "nothing waits for the lock")
    (pid,) = other.pids()
    other.execute(f"SELECT pg_terminate_backend({pid})")
    await task


async def lose_a_statement(lane: Lane, other: Observer) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        await terminate_while(opened.fetch_all(TAKE_LOCK, {}), other)


async def lose_a_statement_and_go_on(lane: Lane, other: Observer) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        with pytest.raises(OperationalError):
            await terminate_while(opened.fetch_all(TAKE_LOCK, {}), other)
        with pytest.raises(OperationalError):
            await insert(opened, 2)


async def lose_the_connection_between_statements(lane: Lane, other: Observer) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        (pid,) = other.pids()
        other.execute(f"SELECT pg_terminate_backend({pid})")
        connection = lane._connection
        assert connection is not None
        await wait_until_async(lambda: not connection.is_usable, "the loop does not see it")
        with pytest.raises(OperationalError):
            await insert(opened, 2)


async def lose_the_commit(lane: Lane, other: Observer) -> None:
    await terminate_while(insert_in_transaction(lane, 1, COMMIT_WAITS), other)


LOSSES = [
    begin_on_a_terminated_connection,
    lose_a_statement,
    lose_a_statement_and_go_on,
    lose_the_connection_between_statements,
    lose_the_commit,
]


@pytest.mark.postgresql
@pytest.mark.parametrize("lose", LOSSES)
def test_terminated_backend_fails_only_its_transaction(
    table: None,
    other: Observer,
    unlimited_time: None,
    lose: Callable[[Lane, Observer], Coroutine[Any, Any, None]],
) -> None:
    async def test(lane: Lane) -> None:
        other.hold_lock()
        with pytest.raises(OperationalError):
            await lose(lane, other)
        assert committed(other) == []
        assert not lane.outage.is_active
        await check_next_statement_commits(lane, other)
        await insert_in_transaction(lane, 1)
        assert committed(other) == [1]
        await wait_until_async(lambda: len(other.pids()) == 1, "more than one connection is kept")

    run_with_lane(test)


@pytest.mark.postgresql
def test_close_waits_only_for_the_current_statement(other: Observer, unlimited_time: None) -> None:
    async def test(lane: Lane) -> None:
        other.hold_lock()
        executed = await other.start_waiting(lane)
        closing = asyncio.create_task(lane.close())
        waiting = asyncio.create_task(fetch_error(lane))
        await asyncio.sleep(0)
        other.release_lock()
        assert await executed == [("taken",)]
        await closing
        waiting.cancel()
        await asyncio.wait([waiting])
        await wait_until_async(lambda: not other.pids(), "a connection is open")

    run_with_lane(test)


@pytest.mark.postgresql
def test_transaction_on_a_read_only_connection_begins_an_outage(
    table: None, options: dict[str, Any], other: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def write(lane: Lane) -> Error:
        with pytest.raises(Error) as raised:
            async with lane.transaction() as opened:
                await opened.fetch_all(WRITE, {})
        return raised.value

    async def test(lane: Lane) -> None:
        async with Proxy() as proxy:
            before = options.get("options", "")
            options["options"] = f"{before} -c default_transaction_read_only=on"
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.5)
            error = await write(lane)
            assert (type(error), error.__cause__.sqlstate) == (OperationalError, "25006")  # type: ignore[union-attr]
            assert lane.outage.is_active
            errors = [await write(lane) for _ in range(50)] + [await fetch_error(lane) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert proxy.accepted < 10, "statements try to connect"
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
            options["options"] = before
            await wait_until_async(lambda: not lane.outage.is_active, "the outage does not end")
            connected = proxy.accepted
            async with lane.transaction() as opened:
                assert await opened.fetch_all(WRITE, {}) == [(1,)]
            await check_next_statement_commits(lane, other)
            assert proxy.accepted == connected, "the connection of the probe is used"

    run_with_lane(test)


# Django's connection


@contextlib.asynccontextmanager
async def django_database() -> AsyncIterator[DjangoDatabase]:
    """Yield a DjangoDatabase, on SQLite or PostgreSQL."""
    open_threads(1)
    database = DjangoDatabase()
    try:
        yield database
    finally:
        await database.close()
        close_threads()


async def add(executor: DjangoDatabase | Transaction, *names: str) -> None:
    for name in names:
        statement = "INSERT INTO ags_sessions_lease (name, holder) VALUES (%(name)s, '') RETURNING name"
        assert [*await executor.fetch_all(statement, {"name": name})] == [(name,)]


async def add_in_transaction(database: DjangoDatabase, *names: str) -> None:
    async with database.transaction() as opened:
        await add(opened, *names)


def names() -> set[str]:
    return set(Lease.objects.values_list("name", flat=True))


@pytest.mark.django_db(transaction=True)
def test_django_database_commits_and_rolls_back() -> None:
    async def test() -> None:
        async with django_database() as database:
            await add_in_transaction(database, "a", "b")
            async with failing_transaction(database) as opened:
                await add(opened, "raised")
            with pytest.raises(IntegrityError):
                await add_in_transaction(database, "failed", "a")
            inserted = asyncio.Event()

            async def use() -> None:
                async with database.transaction() as opened:
                    await add(opened, "cancelled")
                    inserted.set()
                    await asyncio.sleep(PATIENCE)

            task = asyncio.create_task(use())
            await inserted.wait()
            task.cancel()
            await add(database, "c")
            assert task.cancelled()

    run_in_event_loop(test())
    assert names() == {"a", "b", "c"}


@pytest.mark.django_db(transaction=True)
def test_django_database_isolates_transactions() -> None:
    async def test() -> None:
        async with django_database() as database:
            async with failing_transaction(database) as opened:
                await add(opened, "a")
                waiting = [
                    asyncio.create_task(add_in_transaction(database, "b", "c")),
                    asyncio.create_task(add(database, "d")),
                ]
                await add(opened, "e", "f", "g")
                assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)

    run_in_event_loop(test())
    assert names() == {"b", "c", "d"}


@pytest.mark.django_db(transaction=True)
def test_django_database_cancelled_transaction_is_atomic() -> None:
    async def test() -> None:
        async with django_database() as database:
            for turns in range(30):
                task = asyncio.create_task(add_in_transaction(database, f"a {turns}", f"b {turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0.0001)
                task.cancel()
                await add(database, f"next {turns}")

    run_in_event_loop(test())
    assert names() >= {f"next {turns}" for turns in range(30)}
    assert {name[2:] for name in names() if name[0] == "a"} == {
        name[2:] for name in names() if name[0] == "b"
    }


@pytest.mark.django_db
def test_django_database_transaction_in_an_atomic_block_is_a_savepoint() -> None:
    Lease.objects.create(name="before")
    async_to_sync(add_in_transaction)(DjangoDatabase(), "a", "b")
    with pytest.raises(IntegrityError):
        async_to_sync(add_in_transaction)(DjangoDatabase(), "c", "before")
    assert names() == {"before", "a", "b"}
