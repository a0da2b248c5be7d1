"""Transactions whose connection is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from django.db import Error, OperationalError

from ags.database import outage
from ags.database.lane import Lane
from tests.support.event_loop import wait_until_async
from tests.support.postgresql import (
    PID,
    TAKE_LOCK,
    WRITE,
    Observer,
    Proxy,
    fetch_error,
    fetch_value,
    run_with_lane,
)
from tests.support.transactions import (
    COMMIT_WAITS,
    check_next_statement_commits,
    get_committed,
    insert,
    insert_in_transaction,
)
from tests.support.waiting import PATIENCE

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
        assert get_committed(other) == []
        assert not lane.outage.is_active
        await check_next_statement_commits(lane, other)
        await insert_in_transaction(lane, 1)
        assert get_committed(other) == [1]
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
            monkeypatch.setattr(outage, "PROBE_INTERVAL", 0.5)
            error = await write(lane)
            assert (type(error), error.__cause__.sqlstate) == (OperationalError, "25006")  # type: ignore[union-attr]
            assert lane.outage.is_active
            errors = [await write(lane) for _ in range(50)] + [await fetch_error(lane) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert proxy.accepted < 10, "statements try to connect"
            monkeypatch.setattr(outage, "PROBE_INTERVAL", 0.01)
            options["options"] = before
            await wait_until_async(lambda: not lane.outage.is_active, "the outage does not end")
            connected = proxy.accepted
            async with lane.transaction() as opened:
                assert await opened.fetch_all(WRITE, {}) == [(1,)]
            await check_next_statement_commits(lane, other)
            assert proxy.accepted == connected, "the connection of the probe is used"

    run_with_lane(test)
