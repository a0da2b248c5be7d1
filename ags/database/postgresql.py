"""The database interface on asynchronous connections to PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import psycopg
from django.db import connection, utils
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from psycopg.waiting import READY_R, READY_W, WAIT_W, Ready

from ags.database.django_connections import (
    NOT_READY_SQLSTATES,
    READ_ONLY_QUERY,
    RESPONSE_TIMEOUT,
    is_connection_lost,
    with_timeouts,
)
from ags.database.engine.base import circuit_breaker
from ags.database.threads import CONFIGURATION, QueueTimeout, acquire, run_in_thread

PROBE_INTERVAL = 0.2
"""Seconds between two attempts to reconnect during an outage."""

CHECK_INTERVAL = 1.0
"""Seconds between two checks whether a connection for READS still leads to the primary."""

PLAN_INTERVAL = 1.0
"""Seconds after which the cached plans of a connection are discarded.

PostgreSQL caches the plan of a prepared statement until a table has new statistics. A plan for an empty table
would scan the whole table for up to a minute after the table has grown (`autovacuum_naptime`).
"""

READS, INSERTS, UPDATES = "reads", "inserts", "updates"
"""Kinds of statements. Statements of one kind run one after another.

UPDATES may wait for row locks; INSERTS wait only for a concurrent insert of the same key.
"""

LANE_TIMEOUTS = {"lock_timeout": 500, "idle_in_transaction_session_timeout": 5000}
"""Milliseconds. Shorter than TIMEOUTS because a batch delays several requests.

The second one releases the locks of a process that is suspended within a transaction.
"""

TIMEOUT_GRACE = 0.01
"""Seconds to wait after RESPONSE_TIMEOUT: if the event loop was busy, the response may already be there."""

log = logging.getLogger("ags.database")

_T = TypeVar("_T")


class Connection(psycopg.AsyncConnection[Any]):
    """Waits for a response for at most RESPONSE_TIMEOUT, and detects immediately that PostgreSQL closes it.

    psycopg registers the socket with the event loop for each statement. This class registers it once, so that
    the event loop also watches an idle connection.
    """

    def watch(self) -> None:
        """Register the socket with the running event loop. Call this once, after connecting."""
        self.loop = asyncio.get_running_loop()
        self.socket = self.fileno()
        for name in ("json", "jsonb"):  # as with Django
            self.adapters.register_loader(name, TextLoader)
        self.statements = self.cursor()  # copies the adapters
        self.is_usable = True
        self.ready: asyncio.Future[Ready] | None = None
        self.loop.add_reader(self.socket, self._on_ready, READY_R)

    async def close(self) -> None:
        self._unwatch()
        await super().close()

    async def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        """Run an operation of the connection. Raises psycopg.OperationalError after RESPONSE_TIMEOUT."""
        self.timer = self.loop.call_later(RESPONSE_TIMEOUT, self._start_grace)
        try:
            wanted = next(gen)
            while True:
                self.ready = self.loop.create_future()
                if wanted & WAIT_W:
                    self.loop.add_writer(self.socket, self._on_ready, READY_W)
                wanted = gen.send(await self.ready)
        except StopIteration as end:
            return end.value
        except BaseException:
            if self.closed:  # another socket may soon reuse the file descriptor
                self._unwatch()
            raise
        finally:
            self.ready = None
            self.timer.cancel()

    def _on_ready(self, ready: Ready) -> None:
        if ready == READY_W:
            self.loop.remove_writer(self.socket)
        if self.ready is None:  # idle: PostgreSQL has closed the connection or is about to
            self._unwatch()
        elif not self.ready.done():
            self.ready.set_result(ready)

    def _start_grace(self) -> None:
        self.timer = self.loop.call_later(TIMEOUT_GRACE, self._expire)

    def _expire(self) -> None:
        if self.ready is None or self.ready.done():  # data has just arrived
            self._start_grace()
        else:
            self.ready.set_exception(psycopg.OperationalError("PostgreSQL did not respond in time"))

    def _unwatch(self) -> None:
        if self.is_usable:
            self.is_usable = False
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)


class PostgreSQL:
    """One lane (connection) for each kind of statement. Transactions use the lane for UPDATES."""

    max_batch_size = 32

    def __init__(self) -> None:
        self._outage = Outage()
        self._lanes = {
            READS: Lane(self._outage, only_reads=True),
            INSERTS: Lane(self._outage),
            UPDATES: Lane(self._outage),
        }
        self._orm_semaphore = asyncio.Semaphore()

    @property
    def is_available(self) -> bool:
        """False during an outage."""
        return not self._outage.is_active

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors.

        A statement that has started is completed even if the caller is cancelled.
        """
        return await self._lanes[kind].fetch_all(statement, params)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction. Raises Django's database errors."""
        return self._lanes[UPDATES].transaction()

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function that uses the ORM in a thread; return its result. Raises its errors.

        Raises OperationalError immediately during an outage. Functions run one after another; those that are
        waiting when an outage begins fail, too.
        """
        await acquire(self._orm_semaphore)
        try:
            with _translate_errors():
                self._outage.raise_if_active()
            return await run_in_thread(function, *args, pool=CONFIGURATION)
        except (utils.OperationalError, utils.InterfaceError) as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.Error) and cause.sqlstate is None:  # no response from PostgreSQL
                self._outage.begin(cause)
            raise
        finally:
            self._orm_semaphore.release()

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
        await self._outage.close()


class Outage:
    """The outage state: during an outage, statements fail immediately, and one task tries to reconnect."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._error: psycopg.Error | None = None
        self._probe_task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    @property
    def is_active(self) -> bool:
        return self._error is not None

    def begin(self, error: psycopg.Error) -> None:
        """Fail all statements until PostgreSQL is available again."""
        if self._error is None:
            self._error = error
            self._probe_task = asyncio.create_task(self._probe())

    def raise_if_active(self) -> None:
        """Raise the error that caused the outage, if there is one."""
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def connect(self) -> Connection:
        """Connect to PostgreSQL. Raises psycopg's errors, immediately during an outage."""
        self.raise_if_active()
        pg, self._connection = self._connection, None
        if pg is not None and pg.is_usable:
            return pg
        try:
            return await _connect()
        except psycopg.Error as error:
            self.begin(error)
            raise

    async def close(self) -> None:
        """Stop reconnecting."""
        task, self._probe_task = self._probe_task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])  # it may be connecting
        if self._connection is not None:
            await self._connection.close()

    async def _probe(self) -> None:
        for lane in self.lanes:
            await lane.close_if_idle()
        while self._error is not None:
            try:
                pg = await _connect()
                if not await _is_read_only(pg):
                    self._connection, self._error = pg, None
                    circuit_breaker.close()
                    return
                await pg.close()
            except psycopg.Error:
                pass
            except Exception as error:
                log.error("the probe of the database failed", exc_info=error)
            await asyncio.sleep(PROBE_INTERVAL)


class Lane:
    """One connection, opened for the first statement and replaced when it is lost.

    After a failover, it may lead to the old primary. Statements that write then fail; a lane with
    `only_reads` checks its connection every CHECK_INTERVAL.
    """

    def __init__(self, outage: Outage, *, only_reads: bool = False) -> None:
        self.outage = outage
        self._only_reads = only_reads
        self._checked_at = 0.0
        self._planned_at = 0.0
        self._connection: Connection | None = None
        self._semaphore = asyncio.Semaphore()
        self._is_closed = False
        outage.lanes.append(self)

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors.

        If the connection has become read-only, the statement is retried once on a new connection: it had no
        effect. A statement that has started is completed even if the caller is cancelled.
        """
        await acquire(self._semaphore)
        return await asyncio.shield(asyncio.create_task(self._fetch_all(statement, params)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction: committed at the end of the block, rolled back on an exception.

        Raises Django's database errors.
        """
        await acquire(self._semaphore)
        try:
            with _translate_errors():
                pg = await self._get_connection()
                await self.execute(pg, "BEGIN")
            try:
                yield Transaction(self, pg)
            except BaseException:
                await self._roll_back(pg)
                raise
            with _translate_errors():
                await self.execute(pg, "COMMIT")
                if pg.statements.statusmessage != "COMMIT":  # a statement had failed
                    raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")
        finally:
            self._semaphore.release()

    async def close_if_idle(self) -> None:
        """Close the connection if no statement uses it; the connection of `Outage` replaces it."""
        if not self._semaphore.locked():
            await self._close_connection()

    async def close(self) -> None:
        """Close the connection after the current statement."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(QueueTimeout):
            await acquire(self._semaphore)  # never released
        await self._close_connection()

    async def execute(
        self, pg: Connection, statement: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        """Execute a statement on a connection that the caller has acquired. Raises psycopg's errors."""
        try:
            if not pg.is_usable:  # closed after the previous statement
                await self._close_connection()
                raise psycopg.OperationalError("PostgreSQL has closed the connection")
            await pg.statements.execute(statement, params, prepare=True)
            result = pg.statements.pgresult
            return await pg.statements.fetchall() if result is not None and result.nfields else []
        except BaseException as error:
            is_active = pg.info.transaction_status == TransactionStatus.ACTIVE
            if isinstance(error, psycopg.Error) and is_active:  # no response, not even an error
                self.outage.begin(error)
            if is_active or pg.closed or is_connection_lost(getattr(error, "sqlstate", None)):
                await self._close_connection()
            raise

    async def _fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        try:
            try:
                return await self.execute(await self._get_connection(), statement, params)
            except psycopg.errors.ReadOnlySqlTransaction:
                pass
            try:
                return await self.execute(await self._get_connection(), statement, params)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                self.outage.begin(error)
                raise
        except psycopg.Error as error:
            raise _to_django_error(error) from error
        finally:
            self._semaphore.release()

    async def _roll_back(self, pg: Connection) -> None:
        try:
            if not pg.closed:
                await self.execute(pg, "ROLLBACK")
        except psycopg.Error:
            await self._close_connection()

    async def _get_connection(self) -> Connection:
        if self.outage.is_active or (
            self._connection is not None and not await self._is_current(self._connection)
        ):
            await self._close_connection()
        if self._is_closed:
            raise psycopg.OperationalError("the process is stopping")
        if self._connection is None:
            self._connection = await self.outage.connect()
        pg = self._connection
        now = pg.loop.time()
        if now >= self._planned_at + PLAN_INTERVAL:
            self._planned_at = now
            await self.execute(pg, "DISCARD PLANS")
        return pg

    async def _is_current(self, pg: Connection) -> bool:
        """Return False if the connection is closed or leads to an old primary."""
        now = pg.loop.time()
        if self._only_reads and pg.is_usable and now >= self._checked_at + CHECK_INTERVAL:
            self._checked_at = now
            return not await _is_read_only(pg)
        return pg.is_usable

    async def _close_connection(self) -> None:
        if self._connection is not None:
            pg, self._connection = self._connection, None
            await pg.close()


class Transaction:
    def __init__(self, lane: Lane, pg: Connection) -> None:
        self._lane, self._pg = lane, pg

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""
        with _translate_errors():
            try:
                return await self._lane.execute(self._pg, statement, params)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                self._lane.outage.begin(error)
                raise


async def _connect() -> Connection:
    params = with_timeouts(connection.get_connection_params(), **LANE_TIMEOUTS)
    for django_only in ("cursor_factory", "context"):
        params.pop(django_only, None)
    pg = await Connection.connect(autocommit=True, **params)
    pg.watch()
    role = connection.settings_dict["OPTIONS"].get("assume_role")
    try:
        if role:
            await pg.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    except BaseException:
        await pg.close()
        raise
    return pg


async def _is_read_only(pg: Connection) -> bool:
    try:
        row = await (await pg.execute(READ_ONLY_QUERY)).fetchone()
    except BaseException:
        await pg.close()
        raise
    return row is None or bool(row[0])


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _to_django_error(error) from error


def _to_django_error(error: psycopg.Error) -> utils.Error:
    """Return Django's error of the same name (PEP 249); OperationalError if the database is not ready."""
    if is_connection_lost(error.sqlstate) or error.sqlstate in NOT_READY_SQLSTATES:
        return utils.OperationalError(*error.args)
    kinds = (getattr(utils, kind.__name__, None) for kind in type(error).__mro__)
    kind: type[utils.Error] = next(kind for kind in kinds if kind is not None)
    return kind(*error.args)
