"""Asynchronous connections to PostgreSQL: every statement returns its own rows or an error in time."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from django.db import DataError, IntegrityError, OperationalError, ProgrammingError
from django.test import override_settings

from ags.database import lane, outage
from ags.database.django_connections import TIMEOUTS
from ags.database.errors import CONNECTION_LOST_SQLSTATES
from ags.database.lane import Lane
from ags.database.outage import Outage
from tests.support.event_loop import wait_until_async
from tests.support.postgresql import (
    LOCK,
    PID,
    WRITE,
    Observer,
    Proxy,
    fetch_error,
    fetch_value,
    run_with_lane,
)

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("options")]


# Statements


def test_statements_return_their_own_rows_with_json_as_text() -> None:
    async def test(database: Lane) -> None:
        statement = "SELECT %(json)s::jsonb, '{\"a\":  1}'::json, %(bytes)s::bytea, %(number)s::integer, NULL"
        params = {"json": '{"b": [1, 2]}', "bytes": b"\x00\xff", "number": 7}
        rows = await database.fetch_all(statement, params)
        assert list(rows) == [('{"b": [1, 2]}', '{"a":  1}', b"\x00\xff", 7, None)]
        assert await database.fetch_all("SELECT 1 WHERE false", {}) == []
        numbers = range(100)
        counted = [fetch_value(database, "SELECT %(n)s::integer", n=number) for number in numbers]
        assert await asyncio.gather(*counted) == list(numbers)

    run_with_lane(test)


def test_statement_is_committed_when_it_returns(other: Observer) -> None:
    async def test(database: Lane) -> None:
        await fetch_value(database, "INSERT INTO committed VALUES (1) RETURNING id")
        assert other.execute("SELECT id FROM committed") == [1]

    other.execute("CREATE TABLE committed (id integer PRIMARY KEY)")
    try:
        run_with_lane(test)
    finally:
        other.execute("DROP TABLE committed")


PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int AS prepared%%'"


@pytest.mark.parametrize("is_prepared", [True, False])
def test_statements_are_prepared_but_not_behind_a_pooler(options: dict[str, Any], is_prepared: bool) -> None:
    async def test(database: Lane) -> None:
        for number in range(3):
            assert await fetch_value(database, "SELECT %(n)s::int AS prepared", n=number) == number
        assert await fetch_value(database, PREPARED) == int(is_prepared)

    if is_prepared:
        run_with_lane(test)
    else:
        options["prepare_threshold"] = None
        with override_settings(AGS_DATABASE_POOLER="transaction"):
            run_with_lane(test)


def test_statements_use_the_assumed_role(options: dict[str, Any], other: Observer) -> None:
    async def test(database: Lane) -> None:
        assert await fetch_value(database, "SELECT current_user") == "pg_monitor"
        other.execute(f"SELECT pg_terminate_backend({await fetch_value(database, PID)})")
        await wait_until_async(lambda: not other.pids(), "the backend does not end")
        await wait_until_async(
            lambda: not database._connection.is_usable,  # type: ignore[union-attr]
            "the end of the backend is not seen",
        )
        assert await fetch_value(database, "SELECT current_user") == "pg_monitor"

    options["assume_role"] = "pg_monitor"
    run_with_lane(test)


def test_failed_connection_attempt_leaves_no_connection_open(
    options: dict[str, Any], other: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            assert "no such role" in str(await fetch_error(database))
            await wait_until_async(lambda: proxy.accepted > 5, "no reconnection")
            assert proxy.most_open <= 2, "failed connections stay open"

    monkeypatch.setattr(outage, "PROBE_INTERVAL", 0.01)
    options["assume_role"] = "no such role"
    run_with_lane(test)


# Errors


def test_statement_error_is_a_django_error_and_keeps_the_connection(
    other: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = {
        "SELECT 1 / 0": (DataError, "22012"),
        "SELECT nothing()": (ProgrammingError, "42883"),
        "SELECT * FROM nowhere": (OperationalError, "42P01"),  # not migrated
        f"SELECT lo_create({LOCK}) UNION ALL SELECT lo_create({LOCK})": (IntegrityError, "23505"),
        "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40P01'; END $$": (OperationalError, "40P01"),
        "SELECT pg_sleep(60)": (OperationalError, "57014"),  # statement_timeout
    }

    async def test(database: Lane) -> None:
        pid = await fetch_value(database, PID)
        for statement, (kind, sqlstate) in statements.items():
            error = await fetch_error(database, statement)
            assert (type(error), error.__cause__.sqlstate) == (kind, sqlstate)  # type: ignore[union-attr]
            assert not database.outage.is_active
            assert await fetch_value(database, PID) == pid

    monkeypatch.setitem(TIMEOUTS, "statement_timeout", 500)
    run_with_lane(test)


def test_failover_error_replaces_the_connection() -> None:
    async def test(database: Lane) -> None:
        for sqlstate in [*CONNECTION_LOST_SQLSTATES - {"25006"}, "08006"]:
            pid = await fetch_value(database, PID)
            error = await fetch_error(
                database, f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"
            )
            assert error.__cause__.sqlstate == sqlstate  # type: ignore[union-attr]
            assert await fetch_value(database, PID) != pid

    run_with_lane(test)


SET_READ_ONLY = "SELECT set_config('default_transaction_read_only', 'on', false)"


def test_statement_is_retried_if_its_connection_has_become_read_only() -> None:
    async def test(database: Lane) -> None:
        pid = await fetch_value(database, PID)
        await fetch_value(database, SET_READ_ONLY)
        assert await fetch_value(database, WRITE) == 1
        assert not database.outage.is_active
        assert await fetch_value(database, PID) != pid

    run_with_lane(test)


def test_read_only_database_is_an_outage(options: dict[str, Any]) -> None:
    async def test(database: Lane) -> None:
        before = options.get("options", "")
        options["options"] = f"{before} -c default_transaction_read_only=on"
        error = await fetch_error(database, WRITE)
        assert (type(error), error.__cause__.sqlstate) == (OperationalError, "25006")  # type: ignore[union-attr]
        assert database.outage.is_active
        assert type(await fetch_error(database, WRITE)) is OperationalError
        options["options"] = before
        await wait_until_async(lambda: not database.outage.is_active, "the outage does not end")
        assert await fetch_value(database, WRITE) == 1

    run_with_lane(test)


def test_connection_for_reads_is_checked_for_an_old_primary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(_: Lane) -> None:
        database = Lane(Outage(), only_reads=True)
        pid = await fetch_value(database, PID)
        await fetch_value(database, SET_READ_ONLY)
        assert await fetch_value(database, PID) == pid
        monkeypatch.setattr(lane, "CHECK_INTERVAL", 0.0)
        assert await fetch_value(database, PID) != pid
        await database.close()

    monkeypatch.setattr(lane, "CHECK_INTERVAL", 3600.0)
    run_with_lane(test)


def test_terminated_idle_backend_is_replaced_without_an_error(other: Observer) -> None:
    async def test(database: Lane) -> None:
        pid = await fetch_value(database, PID)
        other.execute(f"SELECT pg_terminate_backend({pid})")
        await wait_until_async(lambda: not other.pids(), "the backend does not end")
        await wait_until_async(
            lambda: not database._connection.is_usable,  # type: ignore[union-attr]
            "the end of the backend is not seen",
        )
        assert await fetch_value(database, PID) != pid

    run_with_lane(test)


def test_terminated_backend_fails_only_its_statement(other: Observer, no_timeouts: None) -> None:
    async def test(database: Lane) -> None:
        other.hold_lock()
        task = await other.start_waiting(database)
        waiting = [asyncio.create_task(fetch_value(database, "SELECT %(n)s::integer", n=n)) for n in range(9)]
        (pid,) = other.pids()
        other.execute(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(OperationalError):
            await task
        assert await asyncio.gather(*waiting) == list(range(9))
        assert pid not in other.pids()

    run_with_lane(test)


def test_aborted_connection_does_not_affect_the_reused_file_descriptor(
    other: Observer, no_timeouts: None
) -> None:
    """libpq closes the socket, and the next socket of the process reuses its file descriptor."""

    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            other.hold_lock()
            task = await other.start_waiting(database)
            number = database._connection.socket  # type: ignore[union-attr]
            proxy.abort_connections()
            with pytest.raises(OperationalError):
                await task
            pairs = [socket.socketpair() for _ in range(8)]
            assert number in {sock.fileno() for pair in pairs for sock in pair}
            for pair in pairs:
                (reader_a, writer_a), (reader_b, writer_b) = [
                    await asyncio.open_connection(sock=sock) for sock in pair
                ]
                writer_a.write(b"there\n")
                assert await reader_b.readline() == b"there\n"
                writer_b.write(b"and back\n")
                assert await reader_a.readline() == b"and back\n"
                assert not database.outage.is_active
                if number in {sock.fileno() for sock in pair}:
                    assert await fetch_value(database, "SELECT 7") == 7
                writer_b.close()
                writer_a.close()
            other.release_lock()

    run_with_lane(test)


# Cancellation


def test_started_statement_is_completed_after_cancellation(other: Observer, no_timeouts: None) -> None:
    take_lock = f"SELECT 'taken' FROM pg_advisory_lock({LOCK})"

    async def test(database: Lane) -> None:
        pid = await fetch_value(database, PID)
        other.hold_lock()
        started = await other.start_waiting(database, take_lock)
        waiting, next_task = (asyncio.create_task(fetch_value(database, text)) for text in (take_lock, PID))
        await asyncio.sleep(0)
        started.cancel()
        waiting.cancel()
        await asyncio.wait([started, waiting])
        assert (started.cancelled(), waiting.cancelled(), next_task.done()) == (True, True, False)
        other.release_lock()
        assert await next_task == pid, "on the same connection"
        assert other.execute(f"SELECT pid FROM pg_locks WHERE objid = {LOCK} AND granted") == [pid]
        assert await fetch_value(database, f"SELECT pg_advisory_unlock({LOCK})")
        assert not await fetch_value(database, f"SELECT pg_advisory_unlock({LOCK})"), (
            "the cancelled statement was executed"
        )

    run_with_lane(test)


def test_statement_after_a_cancelled_one_returns_its_own_rows(
    options: dict[str, Any], other: Observer
) -> None:
    async def cancel_after(turns: int, database: Lane) -> None:
        task = asyncio.create_task(fetch_value(database, "SELECT 'cancelled'"))
        for _ in range(turns):
            await asyncio.sleep(0.0005)  # one iteration of the loop, which reads sockets
        task.cancel()
        assert await fetch_value(database, "SELECT %(n)s::integer", n=turns) == turns

    async def test(database: Lane) -> None:
        for turns in range(20):
            await cancel_after(turns, database)
            new = Lane(Outage())  # cancelled while connecting
            await cancel_after(turns, new)
            await new.close()
        await wait_until_async(lambda: len(other.pids()) == 1, "connections of cancelled requests are kept")

    options["assume_role"] = "pg_monitor"
    run_with_lane(test)
