"""Statements of an event loop on PostgreSQL: each gets its own rows, or an error, and always in time."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import psycopg
import pytest
from django.db import (
    DataError,
    Error,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
)
from django.test import override_settings

from ags.database import INSERTS, READS, UPDATES, run_with_orm
from ags.database import database as database_of_loop
from ags.database import postgresql as module
from ags.database.django_connections import LIMITS, LOST
from ags.database.postgresql import Lane, Outage
from ags.operations import metrics
from tenants import snapshot
from tenants.models import Tenant
from tests import event_loop
from tests.conftest import HeadEnd
from tests.event_loop import eventually
from tests.live.server import database_url
from tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.postgresql, pytest.mark.usefixtures("django_db_setup", "options")]

NAME = "test_postgresql"
PID = "SELECT pg_backend_pid()"
LOCK = 4711
TAKE_LOCK = f"SELECT 'taken' FROM pg_advisory_xact_lock({LOCK})"

Test = Callable[[Lane], Coroutine[Any, Any, None]]


def run(test: Test) -> None:
    """Run a test with the database of an event loop."""

    async def run_and_close() -> None:
        database = Lane(Outage())
        try:
            await test(database)
        finally:
            await database.close()
            await database.outage.close()

    event_loop.run(run_and_close())


async def fetch_one(database: Lane, statement: str, **params: Any) -> Any:
    ((value,),) = await database.fetch_all(statement, params)
    return value


async def fails(database: Lane, statement: str = PID) -> Error:
    """Return the error of a statement, which no other statement has got."""
    with pytest.raises(Error) as raised:
        await database.fetch_all(statement, {})
    return raised.value


@pytest.fixture
def options(django_db_setup: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of the database, which a test may change."""
    options = {**connection.settings_dict["OPTIONS"], "application_name": NAME}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    return options


class Other:
    """Another connection to the database, which sees what those of the test do."""

    def __init__(self, pg: psycopg.Connection[Any]) -> None:
        self.pg = pg

    def execute(self, statement: str) -> list[Any]:
        done = self.pg.execute(statement)  # type: ignore[call-overload]
        return [row[0] for row in done.fetchall()] if done.description else []

    def pids(self, condition: str = "true") -> list[int]:
        """The backends of the test."""
        return self.execute(
            "SELECT pid FROM pg_stat_activity"
            f" WHERE datname = current_database() AND application_name = '{NAME}' AND {condition}"
        )

    def hold_lock(self) -> None:
        self.execute(f"SELECT pg_advisory_lock({LOCK})")

    def release_lock(self) -> None:
        self.execute(f"SELECT pg_advisory_unlock({LOCK})")

    def waits(self) -> bool:
        """Return whether a statement waits for the lock."""
        return bool(self.pids("wait_event_type = 'Lock'"))

    async def when_waiting(self, database: Lane, statement: str = TAKE_LOCK) -> asyncio.Task[Any]:
        """Return a statement when it waits for the lock."""
        task = asyncio.create_task(database.fetch_all(statement, {}))
        await eventually(self.waits, "no statement waits for the lock")
        return task


@pytest.fixture
def other(options: dict[str, Any]) -> Iterator[Other]:
    """Another connection. In the end, the test has no backend any more."""
    with psycopg.connect(database_url(), autocommit=True) as pg:
        other = Other(pg)
        yield other
        for pid in other.pids():
            other.execute(f"SELECT pg_terminate_backend({pid}, {PATIENCE * 1000:.0f})")


@pytest.fixture
def no_limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A statement waits until the test is ready."""
    monkeypatch.setattr(module, "ANSWER_LIMIT", PATIENCE)
    with override_settings(AGS_DATABASE_POOLER="transaction"):  # it keeps the limits of PostgreSQL
        yield


class Proxy:
    """Stands between the test and PostgreSQL: it can refuse connections, cut them and get stuck."""

    def __init__(self) -> None:
        self.refuses = False
        self.goes_on = asyncio.Event()
        self.goes_on.set()
        self.accepted = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.most_open = 0
        self.received = b""

    async def __aenter__(self) -> Proxy:
        its = connection.settings_dict
        host = its["OPTIONS"].pop("host", None) or its["HOST"] or "127.0.0.1"
        port = int(its["OPTIONS"].pop("port", None) or its["PORT"] or 5432)
        self._upstream = (
            (asyncio.open_unix_connection, (f"{host}/.s.PGSQL.{port}",))
            if host.startswith("/")
            else (asyncio.open_connection, (host, port))
        )
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        its["OPTIONS"] |= {"host": "127.0.0.1", "port": self._server.sockets[0].getsockname()[1]}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        await eventually(lambda: not self.open, "the proxy does not end")

    def cut(self) -> None:
        """Break all connections, without a word."""
        self.goes_on.set()
        for writer in self.open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.transport.abort()
            return
        self.open.add(writer)
        self.most_open = max(self.most_open, len(self.open))
        try:
            connect, address = self._upstream
            from_server, to_server = await connect(*address)
            await asyncio.gather(self._send(reader, to_server), self._send(from_server, writer))
        finally:
            self.open.discard(writer)

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if writer not in self.open:
                    self.received += data
                await self.goes_on.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


# Statements


def test_each_statement_gets_its_own_rows_with_json_as_text() -> None:
    async def test(database: Lane) -> None:
        statement = "SELECT %(json)s::jsonb, '{\"a\":  1}'::json, %(bytes)s::bytea, %(number)s::integer, NULL"
        params = {"json": '{"b": [1, 2]}', "bytes": b"\x00\xff", "number": 7}
        rows = await database.fetch_all(statement, params)
        assert list(rows) == [('{"b": [1, 2]}', '{"a":  1}', b"\x00\xff", 7, None)]
        assert await database.fetch_all("SELECT 1 WHERE false", {}) == []
        numbers = range(100)
        counted = [fetch_one(database, "SELECT %(n)s::integer", n=number) for number in numbers]
        assert await asyncio.gather(*counted) == list(numbers)

    run(test)


def test_a_row_is_committed_when_its_statement_returns(other: Other) -> None:
    async def test(database: Lane) -> None:
        await fetch_one(database, "INSERT INTO committed VALUES (1) RETURNING id")
        assert other.execute("SELECT id FROM committed") == [1]

    other.execute("CREATE TABLE committed (id integer PRIMARY KEY)")
    try:
        run(test)
    finally:
        other.execute("DROP TABLE committed")


PREPARED = "SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::int AS prepared%%'"


@pytest.mark.parametrize("is_prepared", [True, False])
def test_a_statement_is_prepared_once_and_none_behind_a_pooler(
    options: dict[str, Any], is_prepared: bool
) -> None:
    async def test(database: Lane) -> None:
        for number in range(3):
            assert await fetch_one(database, "SELECT %(n)s::int AS prepared", n=number) == number
        assert await fetch_one(database, PREPARED) == int(is_prepared)

    if is_prepared:
        run(test)
    else:
        options["prepare_threshold"] = None
        with override_settings(AGS_DATABASE_POOLER="transaction"):
            run(test)


def test_statements_are_executed_in_the_role_that_the_options_name(
    options: dict[str, Any], other: Other
) -> None:
    async def test(database: Lane) -> None:
        assert await fetch_one(database, "SELECT current_user") == "pg_monitor"
        other.execute(f"SELECT pg_terminate_backend({await fetch_one(database, PID)})")
        await eventually(lambda: not other.pids(), "the backend does not end")
        await eventually(lambda: not database._connection.is_usable, "the end of the backend is not seen")  # type: ignore[union-attr]
        assert await fetch_one(database, "SELECT current_user") == "pg_monitor"

    options["assume_role"] = "pg_monitor"
    run(test)


def test_an_attempt_to_connect_that_fails_late_keeps_no_connection(
    options: dict[str, Any], other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            assert "no such role" in str(await fails(database))
            await eventually(lambda: proxy.accepted > 5, "nobody tries again")
            assert proxy.most_open <= 2, "one that just ends, and one that begins"

    monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
    options["assume_role"] = "no such role"
    run(test)


# Errors after which a connection is kept, or not


def test_an_error_of_a_statement_has_djangos_class_and_its_connection_stays(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = {
        "SELECT 1 / 0": (DataError, "22012"),
        "SELECT nothing()": (ProgrammingError, "42883"),
        "SELECT * FROM nowhere": (OperationalError, "42P01"),  # it is not migrated yet
        f"SELECT lo_create({LOCK}) UNION ALL SELECT lo_create({LOCK})": (IntegrityError, "23505"),
        "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40P01'; END $$": (OperationalError, "40P01"),
        "SELECT pg_sleep(60)": (OperationalError, "57014"),  # by its statement_timeout
    }

    async def test(database: Lane) -> None:
        pid = await fetch_one(database, PID)
        for statement, (kind, sqlstate) in statements.items():
            error = await fails(database, statement)
            assert (type(error), error.__cause__.sqlstate) == (kind, sqlstate)  # type: ignore[union-attr]
            assert database.outage.is_over
            assert await fetch_one(database, PID) == pid

    monkeypatch.setitem(LIMITS, "statement_timeout", 500)
    run(test)


def test_an_error_that_a_failover_brings_replaces_the_connection() -> None:
    async def test(database: Lane) -> None:
        for sqlstate in [*LOST - {"25006"}, "08006"]:
            pid = await fetch_one(database, PID)
            error = await fails(
                database, f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$"
            )
            assert error.__cause__.sqlstate == sqlstate  # type: ignore[union-attr]
            assert await fetch_one(database, PID) != pid

    run(test)


READ_ONLY = "SELECT set_config('default_transaction_read_only', 'on', false)"
WRITE = "SELECT lo_unlink(lo_create(0))"


def test_where_a_connection_has_become_read_only_a_statement_is_executed_on_another() -> None:
    async def test(database: Lane) -> None:
        pid = await fetch_one(database, PID)
        await fetch_one(database, READ_ONLY)
        assert await fetch_one(database, WRITE) == 1
        assert database.outage.is_over
        assert await fetch_one(database, PID) != pid

    run(test)


def test_while_no_connection_can_be_written_to_postgresql_is_not_available(options: dict[str, Any]) -> None:
    async def test(database: Lane) -> None:
        before = options.get("options", "")
        options["options"] = f"{before} -c default_transaction_read_only=on"
        error = await fails(database, WRITE)
        assert (type(error), error.__cause__.sqlstate) == (OperationalError, "25006")  # type: ignore[union-attr]
        assert not database.outage.is_over
        assert type(await fails(database, WRITE)) is OperationalError
        options["options"] = before
        await eventually(lambda: database.outage.is_over, "the outage does not end")
        assert await fetch_one(database, WRITE) == 1

    run(test)


def test_a_connection_that_is_only_read_from_is_asked_whether_it_leads_to_an_old_primary(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(_: Lane) -> None:
        database = Lane(Outage(), only_reads=True)
        pid = await fetch_one(database, PID)
        await fetch_one(database, READ_ONLY)
        assert await fetch_one(database, PID) == pid
        monkeypatch.setattr(module, "CHECK_INTERVAL", 0.0)
        assert await fetch_one(database, PID) != pid
        await database.close()

    monkeypatch.setattr(module, "CHECK_INTERVAL", 3600.0)
    run(test)


def test_a_backend_that_ends_while_it_is_idle_is_replaced_without_an_error(other: Other) -> None:
    async def test(database: Lane) -> None:
        pid = await fetch_one(database, PID)
        other.execute(f"SELECT pg_terminate_backend({pid})")
        await eventually(lambda: not other.pids(), "the backend does not end")
        await eventually(lambda: not database._connection.is_usable, "the end of the backend is not seen")  # type: ignore[union-attr]
        assert await fetch_one(database, PID) != pid

    run(test)


def test_a_backend_that_ends_during_a_statement_fails_it_and_no_other(other: Other, no_limits: None) -> None:
    async def test(database: Lane) -> None:
        other.hold_lock()
        task = await other.when_waiting(database)
        waiting = [asyncio.create_task(fetch_one(database, "SELECT %(n)s::integer", n=n)) for n in range(9)]
        (pid,) = other.pids()
        other.execute(f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(OperationalError):
            await task
        assert await asyncio.gather(*waiting) == list(range(9))
        assert pid not in other.pids()

    run(test)


def test_a_connection_that_breaks_during_a_statement_leaves_nothing_behind(
    other: Other, no_limits: None
) -> None:
    """libpq closes the socket by itself, and the next one that the process opens has the same number."""

    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            other.hold_lock()
            task = await other.when_waiting(database)
            number = database._connection.socket  # type: ignore[union-attr]
            proxy.cut()
            with pytest.raises(OperationalError):
                await task
            pairs = [socket.socketpair() for _ in range(8)]
            assert number in {one.fileno() for pair in pairs for one in pair}
            for pair in pairs:
                (one_reads, one_writes), (reads, writes) = [
                    await asyncio.open_connection(sock=one) for one in pair
                ]
                one_writes.write(b"there\n")
                assert await reads.readline() == b"there\n"
                writes.write(b"and back\n")
                assert await one_reads.readline() == b"and back\n"
                assert database.outage.is_over
                if number in {one.fileno() for one in pair}:
                    assert await fetch_one(database, "SELECT 7") == 7
                writes.close()
                one_writes.close()
            other.release_lock()

    run(test)


# Requests that are cancelled


def test_a_statement_that_has_begun_goes_on_where_its_request_is_cancelled(
    other: Other, no_limits: None
) -> None:
    take_lock = f"SELECT 'taken' FROM pg_advisory_lock({LOCK})"

    async def test(database: Lane) -> None:
        pid = await fetch_one(database, PID)
        other.hold_lock()
        begun = await other.when_waiting(database, take_lock)
        waiting, next_one = (asyncio.create_task(fetch_one(database, text)) for text in (take_lock, PID))
        await asyncio.sleep(0)
        begun.cancel()
        waiting.cancel()
        await asyncio.wait([begun, waiting])
        assert (begun.cancelled(), waiting.cancelled(), next_one.done()) == (True, True, False)
        other.release_lock()
        assert await next_one == pid, "on the same connection"
        assert other.execute(f"SELECT pid FROM pg_locks WHERE objid = {LOCK} AND granted") == [pid]
        assert await fetch_one(database, f"SELECT pg_advisory_unlock({LOCK})")
        assert not await fetch_one(database, f"SELECT pg_advisory_unlock({LOCK})"), "the other has not begun"

    run(test)


def test_wherever_a_request_is_cancelled_the_next_gets_its_own_rows(
    options: dict[str, Any], other: Other
) -> None:
    async def cancel_after(turns: int, database: Lane) -> None:
        task = asyncio.create_task(fetch_one(database, "SELECT 'cancelled'"))
        for _ in range(turns):
            await asyncio.sleep(0.0005)  # a turn of the loop in which it reads sockets
        task.cancel()
        assert await fetch_one(database, "SELECT %(n)s::integer", n=turns) == turns

    async def test(database: Lane) -> None:
        for turns in range(20):
            await cancel_after(turns, database)
            new = Lane(Outage())  # cancelled while it connects
            await cancel_after(turns, new)
            await new.close()
        await eventually(lambda: len(other.pids()) == 1, "connections of cancelled requests are kept")

    options["assume_role"] = "pg_monitor"
    run(test)


# PostgreSQL is not available


def test_while_postgresql_is_not_available_one_task_connects_and_statements_fail_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            proxy.refuses = True
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.5)
            errors = await asyncio.gather(*[fails(database) for _ in range(50)])
            errors += [await fails(database) for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert {type(error.__cause__) for error in errors} == {psycopg.OperationalError}
            assert len({id(error) for error in errors}) == 100, "each has an error of its own"
            assert not database.outage.is_over
            assert proxy.accepted < 10, "not one for each statement"
            monkeypatch.setattr(module, "PROBE_INTERVAL", 0.01)
            before = proxy.accepted
            await eventually(lambda: proxy.accepted > before + 3, "nobody tries again")
            proxy.refuses = False
            await eventually(lambda: database.outage.is_over, "the outage does not end")
            connected = proxy.accepted
            assert await fetch_one(database, "SELECT 7") == 7
            assert (proxy.accepted, proxy.most_open) == (connected, 1), "on the connection that ended it"

    run(test)


def test_a_stuck_postgresql_fails_one_statement_and_is_spared_the_others(
    other: Other, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(database: Lane) -> None:
        async with Proxy() as proxy:
            assert await fetch_one(database, "SELECT 'before'") == "before"
            proxy.goes_on.clear()
            with monkeypatch.context() as short:
                short.setattr(module, "ANSWER_LIMIT", 0.05)
                stuck = asyncio.create_task(fails(database, "SELECT 'stuck'"))
                others = [asyncio.create_task(fails(database, "SELECT 'spared'")) for _ in range(50)]
                errors = [await stuck, *await asyncio.gather(*others)]
                errors += [await fails(database, "SELECT 'spared'") for _ in range(50)]
            assert {type(error) for error in errors} == {OperationalError}
            assert b"'stuck'" in proxy.received
            assert b"'spared'" not in proxy.received
            assert not database.outage.is_over
            proxy.goes_on.set()
            await eventually(lambda: database.outage.is_over, "the outage does not end")
            assert await fetch_one(database, "SELECT 'after'") == "after"
            await eventually(lambda: len(other.pids()) == 1, "the connection that was stuck is kept")

    run(test)


@pytest.mark.django_db(transaction=True)
def test_while_postgresql_is_not_available_requests_are_refused_without_a_connection(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request finds the tenants old, and so would have the ORM read them."""

    async def status() -> int:
        given = {"parameters": [{"name": "OperatorAuthToken", "value": nagra.token()}]}
        return (await event_loop.post("/ags/getSessionToken", given, nagra.headers()))[0]

    async def begin_outage(proxy: Proxy, probe_interval: float) -> None:
        monkeypatch.setattr(module, "PROBE_INTERVAL", probe_interval)
        assert await status() == 200
        await run_with_orm(connections.close_all)
        proxy.refuses = True
        proxy.cut()
        assert await status() == 503
        assert not database_of_loop().is_available

    async def test() -> None:
        async with Proxy() as proxy:
            async with event_loop.serving():
                await begin_outage(proxy, probe_interval=3600.0)
                before = proxy.accepted
                assert {await status() for _ in range(100)} == {503}
                with pytest.raises(OperationalError):
                    await run_with_orm(metrics.render_metrics)
                await eventually(lambda: proxy.accepted > before, "nobody tries to connect")
                assert {await status() for _ in range(100)} == {503}
                assert proxy.accepted == before + 1, "nobody but the prober tries"
            proxy.refuses = False
            async with event_loop.serving():
                await begin_outage(proxy, probe_interval=0.01)
                proxy.refuses = False
                await eventually(lambda: database_of_loop().is_available, "the outage does not end")
                assert await status() == 200
                assert b"ags_document_good" in await run_with_orm(metrics.render_metrics)

    monkeypatch.setattr(snapshot, "VERSIONS_MAX_AGE", 0.0)
    event_loop.run(test())


@pytest.mark.django_db(transaction=True)
def test_an_outage_leaves_no_connection_more_than_before() -> None:
    """PostgreSQL may have been unavailable to one of four connections only."""

    def lose_connection() -> None:
        raise OperationalError from psycopg.OperationalError()

    async def use_each_connection() -> None:
        for kind in (READS, INSERTS, UPDATES):
            await database_of_loop().fetch_all(PID, {}, kind)
        await run_with_orm(Tenant.objects.exists)

    async def test() -> None:
        async with Proxy() as proxy, event_loop.serving():
            await use_each_connection()
            assert len(proxy.open) == 4
            with pytest.raises(OperationalError):
                await run_with_orm(lose_connection)
            assert not database_of_loop().is_available
            await eventually(lambda: database_of_loop().is_available, "the outage does not end")
            await use_each_connection()
            await eventually(lambda: len(proxy.open) == 4, "connections are left")

    event_loop.run(test())


# The loop was busy

LIMIT = 0.05
"""Seconds from the beginning of a block, in place of ANSWER_LIMIT."""


def block_until_answered(database: Lane) -> None:
    """Have the loop do nothing until the answer is in the socket, and its time is over."""
    pg = database._connection
    assert pg is not None
    pg.limit.cancel()
    pg.limit = pg.loop.call_later(LIMIT, pg._expire)
    time.sleep(LIMIT)
    wait_until(lambda: select.select([pg], [], [], 0)[0], "no answer comes")


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
def test_an_answer_that_came_while_the_loop_was_busy_is_read(
    other: Other, no_limits: None, block: Any
) -> None:
    async def test(database: Lane) -> None:
        await fetch_one(database, PID)

        def let_it_answer() -> None:
            other.release_lock()
            block_until_answered(database)

        other.hold_lock()
        task = await other.when_waiting(database, f"{TAKE_LOCK}, repeat('x', 3000000)")
        await block(let_it_answer)
        assert await task == [("taken",)]
        assert database.outage.is_over

    run(test)


def test_an_answer_of_which_only_a_part_came_while_the_loop_was_busy_is_not_waited_for_for_ever(
    other: Other, no_limits: None
) -> None:
    statement = f"""
SELECT repeat('x', 20000), CASE WHEN number % 9 = 0 THEN pg_advisory_xact_lock({LOCK} + number / 18)::text END
  FROM generate_series(1, 18) number
""".replace("%", "%%")

    async def test(database: Lane) -> None:
        await fetch_one(database, PID)

        def let_it_answer_in_part() -> None:
            other.release_lock()
            block_until_answered(database)

        other.hold_lock()
        other.execute(f"SELECT pg_advisory_lock({LOCK} + 1)")
        task = await other.when_waiting(database, statement)
        await block_while_reading_a_socket(let_it_answer_in_part)
        with pytest.raises(OperationalError):
            await task
        assert not database.outage.is_over

    run(test)
