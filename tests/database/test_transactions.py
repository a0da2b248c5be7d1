"""Transactions of an event loop: all or nothing, and nothing else is ever executed in one."""

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
from ags.database.threads import WaitedTooLong, close_threads, open_threads
from ags.sessions.models import Lease
from tests import event_loop
from tests.database import test_postgresql
from tests.database.test_postgresql import PID, TAKE_LOCK, WRITE, Other, Proxy, fails, fetch_one, run
from tests.event_loop import eventually
from tests.live.server import database_url
from tests.waiting import PATIENCE

options, other, no_limits = test_postgresql.options, test_postgresql.other, test_postgresql.no_limits

NEXT, REFUSED, WAITS = 999, -1, 0
"""Numbers: that of the next statement, and those of rows for which a commit fails and waits for the lock."""


class Fault(Exception):
    """What a test raises within a transaction."""


@pytest.fixture
def table(options: dict[str, Any]) -> Iterator[None]:
    """A table of numbers. What a test does not end, `other` has ended before this is dropped."""
    with psycopg.connect(database_url(), autocommit=True) as pg:
        pg.execute("CREATE TABLE numbers (number integer PRIMARY KEY)")
        pg.execute(
            f"""
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.number = {REFUSED} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF;
  IF NEW.number = {WAITS} THEN PERFORM pg_advisory_xact_lock({test_postgresql.LOCK}); END IF;
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
def patient(no_limits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits, waits until the test is ready."""
    monkeypatch.setattr(threads, "WAIT_LIMIT", PATIENCE)


async def insert(where: Lane | Transaction, *numbers: int) -> None:
    for number in numbers:
        statement = "INSERT INTO numbers VALUES (%(number)s) RETURNING number"
        assert await where.fetch_all(statement, {"number": number}) == [(number,)]


async def insert_in_transaction(lane: Lane, *numbers: int) -> None:
    async with lane.transaction() as opened:
        await insert(opened, *numbers)


@contextlib.asynccontextmanager
async def failing_transaction(database: Lane | DjangoDatabase) -> AsyncIterator[Transaction]:
    """Open a transaction whose block ends with an exception."""
    try:
        async with database.transaction() as opened:
            yield opened
            raise Fault
    except Fault:
        return
    pytest.fail("the exception is lost")


def committed(other: Other) -> list[int]:
    return other.execute("SELECT number FROM numbers ORDER BY number")


async def next_statement_is_on_its_own(lane: Lane, other: Other) -> None:
    """Whatever was executed before on this lane: the next statement is committed when it returns."""
    before = committed(other)
    await insert(lane, NEXT)
    assert committed(other) == [*before, NEXT]
    other.execute(f"DELETE FROM numbers WHERE number = {NEXT}")


# The end of a block


@pytest.mark.postgresql
def test_a_transaction_is_committed_at_the_end_of_its_block_and_not_before(table: None, other: Other) -> None:
    async def test(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1, 2)
            assert await opened.fetch_all("SELECT count(*) FROM numbers", {}) == [(2,)]
            assert committed(other) == []
        assert committed(other) == [1, 2]
        await next_statement_is_on_its_own(lane, other)

    run(test)


@pytest.mark.postgresql
def test_an_exception_rolls_a_transaction_back_and_the_connection_stays(table: None, other: Other) -> None:
    async def test(lane: Lane) -> None:
        pid = await fetch_one(lane, PID)
        async with failing_transaction(lane) as opened:
            await insert(opened, 1)
        assert committed(other) == []
        await next_statement_is_on_its_own(lane, other)
        assert await fetch_one(lane, PID) == pid

    run(test)


@pytest.mark.postgresql
@pytest.mark.parametrize("is_swallowed", [False, True])
def test_after_a_statement_that_failed_nothing_is_committed_and_the_caller_learns_of_it(
    table: None, other: Other, is_swallowed: bool
) -> None:
    async def use(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            with pytest.raises(IntegrityError) if is_swallowed else contextlib.nullcontext():
                await insert(opened, 1)

    async def test(lane: Lane) -> None:
        pid = await fetch_one(lane, PID)
        with pytest.raises(InternalError if is_swallowed else IntegrityError):
            await use(lane)
        assert committed(other) == []
        await next_statement_is_on_its_own(lane, other)
        assert await fetch_one(lane, PID) == pid

    run(test)


@pytest.mark.postgresql
def test_a_commit_that_postgresql_refuses_is_an_error_and_leaves_nothing(table: None, other: Other) -> None:
    async def test(lane: Lane) -> None:
        with pytest.raises(IntegrityError):
            await insert_in_transaction(lane, 1, REFUSED)
        assert committed(other) == []
        await next_statement_is_on_its_own(lane, other)

    run(test)


# Requests that are cancelled


@pytest.mark.postgresql
def test_a_transaction_that_is_cancelled_between_statements_is_rolled_back(table: None, other: Other) -> None:
    async def test(lane: Lane) -> None:
        pid = await fetch_one(lane, PID)
        inserted = asyncio.Event()

        async def use() -> None:
            async with lane.transaction() as opened:
                await insert(opened, 1)
                inserted.set()
                await asyncio.sleep(PATIENCE)

        task = asyncio.create_task(use())
        await inserted.wait()
        task.cancel()
        await next_statement_is_on_its_own(lane, other)
        assert task.cancelled()
        assert committed(other) == []
        assert await fetch_one(lane, PID) == pid

    run(test)


@pytest.mark.postgresql
def test_a_transaction_that_is_cancelled_during_a_statement_leaves_nothing(
    table: None, other: Other, patient: None
) -> None:
    async def use(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            await opened.fetch_all(TAKE_LOCK, {})

    async def test(lane: Lane) -> None:
        other.hold_lock()
        task = asyncio.create_task(use(lane))
        await eventually(other.waits, "no statement waits for the lock")
        task.cancel()
        await next_statement_is_on_its_own(lane, other)
        assert task.cancelled()
        assert lane.outage.is_over
        other.release_lock()
        await eventually(lambda: len(other.pids()) == 1, "the connection of the cancelled one is kept")
        assert committed(other) == []

    run(test)


@pytest.mark.postgresql
def test_wherever_a_transaction_is_cancelled_it_is_all_or_nothing_and_the_next_statement_is_on_its_own(
    table: None, other: Other
) -> None:
    async def cancel_after(turns: int, lane: Lane, first: int) -> None:
        task = asyncio.create_task(insert_in_transaction(lane, first, first + 1))
        for _ in range(turns):
            await asyncio.sleep(0.0005)  # a turn of the loop in which it reads sockets
        task.cancel()
        await insert(lane, -first)
        assert -first in committed(other)

    async def test(lane: Lane) -> None:
        for turns in range(20):
            await cancel_after(turns, lane, 1000 + 2 * turns)
            new = Lane(Outage())  # cancelled while it connects
            await cancel_after(turns, new, 2000 + 2 * turns)
            await new.close()
        await eventually(lambda: len(other.pids()) == 1, "connections of cancelled requests are kept")
        stored = {number for number in committed(other) if number > 0}
        assert {number ^ 1 for number in stored} == stored, "both of a transaction, or none"

    run(test)


# One after the other


@pytest.mark.postgresql
def test_nothing_is_executed_in_the_transaction_of_another(table: None, other: Other, patient: None) -> None:
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

    run(test)


@pytest.mark.postgresql
def test_what_waits_for_its_turn_too_long_is_not_executed_and_the_turn_goes_on(
    table: None, other: Other, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(lane: Lane) -> None:
        async with lane.transaction() as opened:
            await insert(opened, 1)
            with monkeypatch.context() as short:
                short.setattr(threads, "WAIT_LIMIT", 0.05)
                with pytest.raises(WaitedTooLong):
                    await insert(lane, 2)
                with pytest.raises(WaitedTooLong):
                    await insert_in_transaction(lane, 3)
            late = asyncio.create_task(insert(lane, 4))
            await insert(opened, 5)
            assert not late.done()
        await late
        assert committed(other) == [1, 4, 5]
        await insert_in_transaction(lane, 6)
        await next_statement_is_on_its_own(lane, other)

    run(test)


@pytest.mark.postgresql
def test_reads_and_inserts_do_not_wait_for_an_update_that_waits_for_a_row(
    table: None, other: Other, patient: None
) -> None:
    async def test() -> None:
        database = PostgreSQL()
        other.execute("INSERT INTO numbers VALUES (1)")
        with psycopg.connect(database_url()) as holder:
            holder.execute("SELECT FROM numbers FOR UPDATE")
            update = asyncio.create_task(
                database.fetch_all("UPDATE numbers SET number = 2 RETURNING number", {}, UPDATES)
            )
            await eventually(other.waits, "the update does not wait")
            assert await database.fetch_all("SELECT number FROM numbers", {}, READS) == [(1,)]
            statement = "INSERT INTO numbers VALUES (3) RETURNING number"
            assert await database.fetch_all(statement, {}, INSERTS) == [(3,)]
            assert committed(other) == [1, 3]
            assert not update.done()
            holder.rollback()
        assert await update == [(2,)]
        await database.close()

    event_loop.run(test())


# The connection is lost


async def begin_on_a_connection_that_has_ended(lane: Lane, other: Other) -> None:
    pid = await fetch_one(lane, PID)
    # The loop does not go on meanwhile, and so does not see it.
    other.execute(f"SELECT pg_terminate_backend({pid}, {PATIENCE * 1000:.0f})")
    await insert_in_transaction(lane, 1)


async def end_while(waiting: Coroutine[Any, Any, Any], other: Other) -> None:
    """End the backend when this waits for the lock. Raises what it raises."""
    task = asyncio.create_task(waiting)
    await eventually(other.waits, "nothing waits for the lock")
    (pid,) = other.pids()
    other.execute(f"SELECT pg_terminate_backend({pid})")
    await task


async def lose_a_statement(lane: Lane, other: Other) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        await end_while(opened.fetch_all(TAKE_LOCK, {}), other)


async def lose_a_statement_and_go_on(lane: Lane, other: Other) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        with pytest.raises(OperationalError):
            await end_while(opened.fetch_all(TAKE_LOCK, {}), other)
        with pytest.raises(OperationalError):
            await insert(opened, 2)


async def lose_the_connection_between_statements(lane: Lane, other: Other) -> None:
    async with lane.transaction() as opened:
        await insert(opened, 1)
        (pid,) = other.pids()
        other.execute(f"SELECT pg_terminate_backend({pid})")
        connection = lane._connection
        assert connection is not None
        await eventually(lambda: not connection.is_usable, "the loop does not see it")
        with pytest.raises(OperationalError):
            await insert(opened, 2)


async def lose_the_commit(lane: Lane, other: Other) -> None:
    await end_while(insert_in_transaction(lane, 1, WAITS), other)


LOSSES = [
    begin_on_a_connection_that_has_ended,
    lose_a_statement,
    lose_a_statement_and_go_on,
    lose_the_connection_between_statements,
    lose_the_commit,
]


@pytest.mark.postgresql
@pytest.mark.parametrize("lose", LOSSES)
def test_a_backend_that_ends_fails_its_transaction_and_no_other(
    table: None, other: Other, patient: None, lose: Callable[[Lane, Other], Coroutine[Any, Any, None]]
) -> None:
    async def test(lane: Lane) -> None:
        other.hold_lock()
        with pytest.raises(OperationalError):
            await lose(lane, other)
        assert committed(other) == []
        assert lane.outage.is_over
        await next_statement_is_on_its_own(lane, other)
        await insert_in_transaction(lane, 1)
        assert committed(other) == [1]
        await eventually(lambda: len(other.pids()) == 1, "more than one connection is kept")

    run(test)


@pytest.mark.postgresql
def test_a_lane_is_closed_after_the_statement_that_is_executed_and_before_those_that_wait(
    other: Other, patient: None
) -> None:
    async def test(lane: Lane) -> None:
        other.hold_lock()
        executed = await other.when_waiting(lane)
        closing = asyncio.create_task(lane.close())
        waiting = asyncio.create_task(fails(lane))
        await asyncio.sleep(0)
        other.release_lock()
        assert await executed == [("taken",)]
        await closing
        waiting.cancel()
        await asyncio.wait([waiting])
        await eventually(lambda: not other.pids(), "a connection is open")

    run(test)


@pytest.mark.postgresql
def test_a_transaction_on_a_connection_that_is_read_only_begins_an_outage_in_which_nothing_reconnects(
    table: None, options: dict[str, Any], other: Other, monkeypatch: pytest.MonkeyPatch
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
            assert not lane.outage.is_over
            errors = [await write(lane) for _ in range(50)] + [await fails(lane) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert proxy.accepted < 10, "not one for each statement"
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
            options["options"] = before
            await eventually(lambda: lane.outage.is_over, "the outage does not end")
            connected = proxy.accepted
            async with lane.transaction() as opened:
                assert await opened.fetch_all(WRITE, {}) == [(1,)]
            await next_statement_is_on_its_own(lane, other)
            assert proxy.accepted == connected, "on the connection that ended the outage"

    run(test)


# Django's connection


@contextlib.asynccontextmanager
async def django_database() -> AsyncIterator[DjangoDatabase]:
    """Give the loop Django's connection of a thread, whichever database it leads to."""
    open_threads(1)
    database = DjangoDatabase()
    try:
        yield database
    finally:
        await database.close()
        close_threads()


async def add(where: DjangoDatabase | Transaction, *names: str) -> None:
    for name in names:
        statement = "INSERT INTO ags_sessions_lease (name, holder) VALUES (%(name)s, '') RETURNING name"
        assert [*await where.fetch_all(statement, {"name": name})] == [(name,)]


async def add_in_transaction(database: DjangoDatabase, *names: str) -> None:
    async with database.transaction() as opened:
        await add(opened, *names)


def names() -> set[str]:
    return set(Lease.objects.values_list("name", flat=True))


@pytest.mark.django_db(transaction=True)
def test_a_transaction_on_djangos_connection_is_committed_or_rolled_back() -> None:
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

    event_loop.run(test())
    assert names() == {"a", "b", "c"}


@pytest.mark.django_db(transaction=True)
def test_users_of_djangos_connection_do_not_interleave() -> None:
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

    event_loop.run(test())
    assert names() == {"b", "c", "d"}


@pytest.mark.django_db(transaction=True)
def test_wherever_a_transaction_on_djangos_connection_is_cancelled_the_next_statement_is_on_its_own() -> None:
    async def test() -> None:
        async with django_database() as database:
            for turns in range(30):
                task = asyncio.create_task(add_in_transaction(database, f"a {turns}", f"b {turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0.0001)
                task.cancel()
                await add(database, f"next {turns}")

    event_loop.run(test())
    assert names() >= {f"next {turns}" for turns in range(30)}
    assert {name[2:] for name in names() if name[0] == "a"} == {
        name[2:] for name in names() if name[0] == "b"
    }


@pytest.mark.django_db
def test_a_transaction_within_that_of_a_test_is_a_savepoint_of_it() -> None:
    Lease.objects.create(name="before")
    async_to_sync(add_in_transaction)(DjangoDatabase(), "a", "b")
    with pytest.raises(IntegrityError):
        async_to_sync(add_in_transaction)(DjangoDatabase(), "c", "before")
    assert names() == {"before", "a", "b"}
