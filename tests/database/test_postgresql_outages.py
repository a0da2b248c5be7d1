"""Outages of PostgreSQL, and a busy event loop."""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import OperationalError, connections

from ags.database import INSERTS, READS, UPDATES, async_connection, get_database, outage, run_with_orm
from ags.database.lane import Lane
from ags.operations import metrics
from tenants import snapshot
from tenants.models import Tenant
from tests.support.clients import HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.postgresql import (
    LOCK,
    PID,
    TAKE_LOCK,
    Observer,
    Proxy,
    fetch_error,
    fetch_value,
    run_with_lane,
)
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("options")]


# Outages


def test_during_an_outage_statements_fail_immediately_and_one_task_reconnects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            proxy.refuses = True
            monkeypatch.setattr(outage, "PROBE_INTERVAL", 0.5)
            errors = await asyncio.gather(*[fetch_error(database) for _ in range(50)])
            errors += [await fetch_error(database) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert {type(error.__cause__) for error in errors} == {psycopg.OperationalError}
            assert len({id(error) for error in errors}) == 100, "each statement has its own error"
            assert database.outage.is_active
            assert proxy.accepted < 10, "statements try to connect"
            monkeypatch.setattr(outage, "PROBE_INTERVAL", 0.01)
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
                short.setattr(async_connection, "RESPONSE_TIMEOUT", 0.05)
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
        monkeypatch.setattr(outage, "PROBE_INTERVAL", probe_interval)
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
                page = await metrics.render_metrics()
                assert b"ags_database_available 0.0" in page
                assert b"ags_document_good" not in page
                await wait_until_async(lambda: proxy.accepted > before, "no reconnection")
                assert {await status() for _ in range(100)} == {503}
                assert proxy.accepted == before + 1, "only the probe connects"
            proxy.refuses = False
            async with open_application():
                await begin_outage(proxy, probe_interval=0.01)
                proxy.refuses = False
                await wait_until_async(lambda: get_database().is_available, "the outage does not end")
                assert await status() == 200
                page = await metrics.render_metrics()
                assert b"ags_database_available 1.0" in page
                assert b"ags_document_good" in page

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
