"""Asynchronous connections to PostgreSQL: every statement returns its own rows or an error in time."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import DataError, IntegrityError, OperationalError, ProgrammingError, connections
from django.test import override_settings

from ags.database import INSERTS, READS, UPDATES, get_database, run_with_orm
from ags.database import postgresql as module
from ags.database.django_connections import CONNECTION_LOST_SQLSTATES, TIMEOUTS
from ags.database.postgresql import Lane, Outage
from ags.operations import metrics
from tenants import snapshot
from tenants.models import Tenant
from tests.support.clients import HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
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
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("django_db_setup", "options")]


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
            lambda: not database._connection.is_usable, "the end of the backend is not seen"
        )  # type: ignore[union-attr]
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

    monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
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
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.0)
        assert await fetch_value(database, PID) != pid
        await database.close()

    monkeypatch.setattr(module, "CHECK_INTERVAL", 3600.0)
    run_with_lane(test)


def test_terminated_idle_backend_is_replaced_without_an_error(other: Observer) -> None:
    async def test(database: Lane) -> None:
        pid = await fetch_value(database, PID)
        other.execute(f"SELECT pg_terminate_backend({pid})")
        await wait_until_async(lambda: not other.pids(), "the backend does not end")
        await wait_until_async(
            lambda: not database._connection.is_usable, "the end of the backend is not seen"
        )  # type: ignore[union-attr]
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


# Outages


def test_during_an_outage_statements_fail_immediately_and_one_task_reconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            proxy.refuses = True
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.5)
            errors = await asyncio.gather(*[fetch_error(database) for _ in range(50)])
            errors += [await fetch_error(database) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert {type(error.__cause__) for error in errors} == {psycopg.OperationalError}
            assert len({id(error) for error in errors}) == 100, "each statement has its own error"
            assert database.outage.is_active
            assert proxy.accepted < 10, "statements try to connect"
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
            before = proxy.accepted
            await wait_until_async(lambda: proxy.accepted > before + 3, "no reconnection")
            proxy.refuses = False
            await wait_until_async(lambda: not database.outage.is_active, "the outage does not end")
            connected = proxy.accepted
            assert await fetch_value(database, "SELECT 7") == 7
            assert (proxy.accepted, proxy.most_open) == (connected, 1), "the connection of the probe is used"

    run_with_lane(test)


def test_frozen_postgresql_gets_only_one_statement(other: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            assert await fetch_value(database, "SELECT 'before'") == "before"
            proxy.may_forward.clear()
            with monkeypatch.context() as short:
                short.setattr(module, "RESPONSE_TIMEOUT", 0.05)
                stuck = asyncio.create_task(fetch_error(database, "SELECT 'stuck'"))
                others = [asyncio.create_task(fetch_error(database, "SELECT 'spared'")) for _ in range(50)]
                errors = [await stuck, *await asyncio.gather(*others)]
                errors += [await fetch_error(database, "SELECT 'spared'") for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert b"'stuck'" in proxy.received
            assert b"'spared'" not in proxy.received
            assert database.outage.is_active
            proxy.may_forward.set()
            await wait_until_async(lambda: not database.outage.is_active, "the outage does not end")
            assert await fetch_value(database, "SELECT 'after'") == "after"
            await wait_until_async(lambda: len(other.pids()) == 1, "the frozen connection stays open")

    run_with_lane(test)


@pytest.mark.django_db(transaction=True)
def test_during_an_outage_requests_fail_without_a_connection(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request finds an expired snapshot and would read the tenants with the ORM."""

    async def status() -> int:
        body = {"parameters": [{"name": "OperatorAuthToken", "value": nagra.token()}]}
        return (await post_json("/ags/getSessionToken", body, nagra.headers()))[0]

    async def begin_outage(proxy: Proxy, probe_interval: float) -> None:
        monkeypatch.setattr(module, "PROBE_INTERVAL", probe_interval)
        assert await status() == 200
        await run_with_orm(connections.close_all)
        proxy.refuses = True
        proxy.abort_connections()
        assert await status() == 503
        assert not get_database().is_available

    async def test() -> None:
        async with Proxy() as proxy:
            async with open_application():
                await begin_outage(proxy, probe_interval=3600.0)
                before = proxy.accepted
                assert {await status() for _ in range(100)} == {503}
                with pytest.raises(OperationalError):
                    await run_with_orm(metrics.render_metrics)
                await wait_until_async(lambda: proxy.accepted > before, "no reconnection")
                assert {await status() for _ in range(100)} == {503}
                assert proxy.accepted == before + 1, "only the probe connects"
            proxy.refuses = False
            async with open_application():
                await begin_outage(proxy, probe_interval=0.01)
                proxy.refuses = False
                await wait_until_async(lambda: get_database().is_available, "the outage does not end")
                assert await status() == 200
                assert b"ags_document_good" in await run_with_orm(metrics.render_metrics)

    monkeypatch.setattr(snapshot, "VERSIONS_MAX_AGE", 0.0)
    run_in_event_loop(test())


@pytest.mark.django_db(transaction=True)
def test_outage_leaves_no_additional_connection() -> None:
    """Only one of four connections may have failed."""

    def lose_connection() -> None:
        raise OperationalError from psycopg.OperationalError()

    async def use_each_connection() -> None:
        for kind in (READS, INSERTS, UPDATES):
            await get_database().fetch_all(PID, {}, kind)
        await run_with_orm(Tenant.objects.exists)

    async def test() -> None:
        async with Proxy() as proxy, open_application():
            await use_each_connection()
            assert len(proxy.open) == 4
            with pytest.raises(OperationalError):
                await run_with_orm(lose_connection)
            assert not get_database().is_available
            await wait_until_async(lambda: get_database().is_available, "the outage does not end")
            await use_each_connection()
            await wait_until_async(lambda: len(proxy.open) == 4, "connections are left")

    run_in_event_loop(test())


# A busy event loop

BLOCKED_SECONDS = 0.05
"""Replaces RESPONSE_TIMEOUT."""


def block_until_response(database: Lane) -> None:
    """Block the loop until the response is in the socket and the timeout is over."""
    pg = database._connection
    assert pg is not None
    pg.timer.cancel()
    pg.timer = pg.loop.call_later(BLOCKED_SECONDS, pg._start_grace)
    time.sleep(BLOCKED_SECONDS)
    wait_until(lambda: select.select([pg], [], [], 0)[0], "no response arrives")


async def block_in_a_task(block: Callable[[], None]) -> None:
    block()


async def block_while_reading_a_socket(block: Callable[[], None]) -> None:
    reads, writes = socket.socketpair()
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def read() -> None:
        loop.remove_reader(reads)
        block()
        done.set_result(None)

    loop.add_reader(reads, read)
    writes.send(b"x")
    await done
    reads.close()
    writes.close()


BLOCKS = [block_in_a_task, block_while_reading_a_socket]


@pytest.mark.parametrize("block", BLOCKS)
def test_response_that_arrived_while_the_loop_was_busy_is_read(
    other: Observer, no_timeouts: None, block: Any
) -> None:
    async def test(database: Lane) -> None:
        await fetch_value(database, PID)

        def let_it_respond() -> None:
            other.release_lock()
            block_until_response(database)

        other.hold_lock()
        task = await other.start_waiting(database, f"{TAKE_LOCK}, repeat('x', 3000000)")
        await block(let_it_respond)
        assert await task == [("taken",)]
        assert not database.outage.is_active

    run_with_lane(test)


def test_partial_response_that_arrived_while_the_loop_was_busy_times_out(
    other: Observer, no_timeouts: None
) -> None:
    statement = f"""
SELECT repeat('x', 20000), CASE WHEN number % 9 = 0 THEN pg_advisory_xact_lock({LOCK} + number / 18)::text END
  FROM generate_series(1, 18) number
""".replace("%", "%%")

    async def test(database: Lane) -> None:
        await fetch_value(database, PID)

        def let_it_respond_partly() -> None:
            other.release_lock()
            block_until_response(database)

        other.hold_lock()
        other.execute(f"SELECT pg_advisory_lock({LOCK} + 1)")
        task = await other.start_waiting(database, statement)
        await block_while_reading_a_socket(let_it_respond_partly)
        with pytest.raises(OperationalError):
            await task
        assert database.outage.is_active

    run_with_lane(test)
