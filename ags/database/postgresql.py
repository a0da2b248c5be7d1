"""Statements of an event loop on an asynchronous connection to PostgreSQL."""

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

from ags.database.django_connections import ANSWER_LIMIT, NOT_READY, READ_ONLY, is_lost, with_limits
from ags.database.engine.base import pause
from ags.database.threads import CONFIGURATION, WaitedTooLong, run_in_thread, take_turn

PROBE_INTERVAL = 0.2
"""Seconds between two attempts to connect to a PostgreSQL that is not available."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks whether a connection that is only read from leads to an old primary."""

PLAN_INTERVAL = 1.0
"""Seconds after which the statements of a connection are planned anew.

PostgreSQL keeps the plan of a prepared statement until a table has new statistics. One that was made while a
table was empty would read the whole table for up to a minute after it has grown (`autovacuum_naptime`).
"""

READS, INSERTS, UPDATES = "reads", "inserts", "updates"
"""Kinds of statements. Those of one kind wait for each other.

UPDATES wait for rows that others have locked; INSERTS only for one that is being inserted, with the same key.
"""

LANE_LIMITS = {"lock_timeout": 500, "idle_in_transaction_session_timeout": 5000}
"""Milliseconds. A statement of several requests waits for a row for a shorter time than that of one.

A process that is stopped within a transaction holds the rows of several requests.
"""

GRACE = 0.01
"""Seconds for which an answer is waited for once more than the limit: the event loop may have been busy."""

log = logging.getLogger("ags.database")

_T = TypeVar("_T")


class Connection(psycopg.AsyncConnection[Any]):
    """Waits for PostgreSQL for at most `ANSWER_LIMIT`, and sees at once when it closes the connection.

    psycopg would register the socket with the event loop for each statement. This registers it once, so that
    an idle connection is watched, too.
    """

    def watch(self) -> None:
        """Begin to watch the socket."""
        self.loop = asyncio.get_running_loop()
        self.socket = self.fileno()
        for name in ("json", "jsonb"):  # as with Django
            self.adapters.register_loader(name, TextLoader)
        self.statements = self.cursor()  # copies the adapters
        self.is_usable = True
        self.ready: asyncio.Future[Ready] | None = None
        self.loop.add_reader(self.socket, self._note, READY_R)

    async def close(self) -> None:
        """Close the connection."""
        self._unwatch()
        await super().close()

    async def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        """Run an operation of the connection. Raises psycopg.OperationalError when it takes too long."""
        self.limit = self.loop.call_later(ANSWER_LIMIT, self._expire)
        try:
            wanted = next(gen)
            while True:
                self.ready = self.loop.create_future()
                if wanted & WAIT_W:
                    self.loop.add_writer(self.socket, self._note, READY_W)
                wanted = gen.send(await self.ready)
        except StopIteration as end:
            return end.value
        except BaseException:
            if self.closed:  # the number of its socket may soon be that of another one
                self._unwatch()
            raise
        finally:
            self.ready = None
            self.limit.cancel()

    def _note(self, ready: Ready) -> None:
        if ready == READY_W:
            self.loop.remove_writer(self.socket)
        if self.ready is None:  # between operations, PostgreSQL closes the connection, or is about to
            self._unwatch()
        elif not self.ready.done():
            self.ready.set_result(ready)

    def _expire(self) -> None:
        # Where the loop was busy, the answer may be here already: it is read before this timer ends.
        self.limit = self.loop.call_later(GRACE, self._give_up)

    def _give_up(self) -> None:
        if self.ready is None or self.ready.done():  # something has just arrived
            self._expire()
        else:
            self.ready.set_exception(psycopg.OperationalError("PostgreSQL has not answered in time"))

    def _unwatch(self) -> None:
        if self.is_usable:
            self.is_usable = False
            self.loop.remove_reader(self.socket)
            self.loop.remove_writer(self.socket)


class PostgreSQL:
    """A lane for each kind of statements. Transactions are of the kind UPDATES."""

    max_batch_size = 32

    def __init__(self) -> None:
        self._outage = Outage()
        self._lanes = {
            READS: Lane(self._outage, only_reads=True),
            INSERTS: Lane(self._outage),
            UPDATES: Lane(self._outage),
        }
        self._orm_turn = asyncio.Semaphore()

    @property
    def is_available(self) -> bool:
        """Whether PostgreSQL was available to the last statements, or has been since."""
        return self._outage.is_over

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors.

        Once it has begun, it goes on where the caller is cancelled.
        """
        return await self._lanes[kind].fetch_all(statement, params)

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction. Raises Django's database errors."""
        return self._lanes[UPDATES].transaction()

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Return what a function returns that uses the ORM. Raises what it raises.

        Raises OperationalError at once while PostgreSQL is not available. One function runs at a time: those
        that wait when an outage begins are refused as well.
        """
        await take_turn(self._orm_turn)
        try:
            with _django_errors():
                self._outage.refuse()
            return await run_in_thread(function, *args, pool=CONFIGURATION)
        except (utils.OperationalError, utils.InterfaceError) as error:
            cause = error.__cause__
            if isinstance(cause, psycopg.Error) and cause.sqlstate is None:  # PostgreSQL has not answered
                self._outage.begin(cause)
            raise
        finally:
            self._orm_turn.release()

    async def close(self) -> None:
        """Close the connections."""
        for lane in self._lanes.values():
            await lane.close()
        await self._outage.close()


class Outage:
    """While PostgreSQL is not available, statements fail at once, and one task tries to connect."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._error: psycopg.Error | None = None
        self._probing: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    @property
    def is_over(self) -> bool:
        """Whether PostgreSQL was available to the last statement, or has been since."""
        return self._error is None

    def begin(self, error: psycopg.Error) -> None:
        """Fail statements from now on, until PostgreSQL is available."""
        if self._error is None:
            self._error = error
            self._probing = asyncio.create_task(self._probe())

    def refuse(self) -> None:
        """Raise psycopg's error while PostgreSQL is not available."""
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def connect(self) -> Connection:
        """Connect to PostgreSQL. Raises psycopg's errors, at once while it is not available."""
        self.refuse()
        pg, self._connection = self._connection, None
        if pg is not None and pg.is_usable:
            return pg
        try:
            return await _connect()
        except psycopg.Error as error:
            self.begin(error)
            raise

    async def close(self) -> None:
        """Stop trying."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()
            await asyncio.wait([probing])  # it may be connecting
        if self._connection is not None:
            await self._connection.close()

    async def _probe(self) -> None:
        for lane in self.lanes:
            await lane.drop_idle()
        while self._error is not None:
            try:
                pg = await _connect()
                if not await _is_read_only(pg):
                    self._connection, self._error = pg, None
                    pause.end()
                    return
                await pg.close()
            except psycopg.Error:
                pass
            except Exception as error:
                log.error("the probe of the database failed", exc_info=error)
            await asyncio.sleep(PROBE_INTERVAL)


class Lane:
    """One connection, which is opened for the first statement and replaced when it is lost.

    After a failover, a connection may lead to the old primary. A statement that writes shows it; where a lane
    `only_reads`, it is asked once in `CHECK_INTERVAL`.
    """

    def __init__(self, outage: Outage, *, only_reads: bool = False) -> None:
        self.outage = outage
        self._only_reads = only_reads
        self._checked_at = 0.0
        self._planned_at = 0.0
        self._connection: Connection | None = None
        self._turn = asyncio.Semaphore()
        self._is_closed = False
        outage.lanes.append(self)

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement, one at a time; return its rows. Raises Django's database errors.

        On a connection that has become read-only, the statement has done nothing: it is executed once more,
        on a new connection. A statement that has begun goes on where the caller is cancelled.
        """
        await take_turn(self._turn)
        return await asyncio.shield(asyncio.create_task(self._fetch_all(statement, params)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """Open a transaction: committed at the end of the block, rolled back where that raises.

        Raises Django's database errors.
        """
        await take_turn(self._turn)
        try:
            with _django_errors():
                pg = await self._connected()
                await self.execute(pg, "BEGIN")
            try:
                yield Transaction(self, pg)
            except BaseException:
                await self._roll_back(pg)
                raise
            with _django_errors():
                await self.execute(pg, "COMMIT")
                if pg.statements.statusmessage != "COMMIT":  # a statement had failed
                    raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")
        finally:
            self._turn.release()

    async def drop_idle(self) -> None:
        """Close the connection if no statement uses it: that of the prober takes its place."""
        if not self._turn.locked():
            await self._drop()

    async def close(self) -> None:
        """Close the connection, after the statement that is executed."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(WaitedTooLong):
            await take_turn(self._turn)  # and keep it
        await self._drop()

    async def execute(
        self, pg: Connection, statement: str, params: Mapping[str, Any] | None = None
    ) -> Sequence[Any]:
        """Execute a statement on the connection that the caller has."""
        try:
            if not pg.is_usable:  # since the statement before
                await self._drop()
                raise psycopg.OperationalError("PostgreSQL has closed the connection")
            await pg.statements.execute(statement, params, prepare=True)
            result = pg.statements.pgresult
            return await pg.statements.fetchall() if result is not None and result.nfields else []
        except BaseException as error:
            is_active = pg.info.transaction_status == TransactionStatus.ACTIVE
            if isinstance(error, psycopg.Error) and is_active:  # no answer came, not even an error
                self.outage.begin(error)
            if is_active or pg.closed or is_lost(getattr(error, "sqlstate", None)):
                await self._drop()
            raise

    async def _fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        try:
            try:
                return await self.execute(await self._connected(), statement, params)
            except psycopg.errors.ReadOnlySqlTransaction:
                pass
            try:
                return await self.execute(await self._connected(), statement, params)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                self.outage.begin(error)
                raise
        except psycopg.Error as error:
            raise _as_django(error) from error
        finally:
            self._turn.release()

    async def _roll_back(self, pg: Connection) -> None:
        try:
            if not pg.closed:
                await self.execute(pg, "ROLLBACK")
        except psycopg.Error:
            await self._drop()

    async def _connected(self) -> Connection:
        if not self.outage.is_over or (
            self._connection is not None and not await self._is_current(self._connection)
        ):
            await self._drop()
        if self._is_closed:
            raise psycopg.OperationalError("the process ends")
        if self._connection is None:
            self._connection = await self.outage.connect()
        pg = self._connection
        now = pg.loop.time()
        if now >= self._planned_at + PLAN_INTERVAL:
            self._planned_at = now
            await self.execute(pg, "DISCARD PLANS")
        return pg

    async def _is_current(self, pg: Connection) -> bool:
        """Whether the connection can be used, and does not lead to an old primary."""
        now = pg.loop.time()
        if self._only_reads and pg.is_usable and now >= self._checked_at + CHECK_INTERVAL:
            self._checked_at = now
            return not await _is_read_only(pg)
        return pg.is_usable

    async def _drop(self) -> None:
        if self._connection is not None:
            pg, self._connection = self._connection, None
            await pg.close()


class Transaction:
    """A transaction that a lane has opened."""

    def __init__(self, lane: Lane, pg: Connection) -> None:
        self._lane, self._pg = lane, pg

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""
        with _django_errors():
            try:
                return await self._lane.execute(self._pg, statement, params)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                self._lane.outage.begin(error)
                raise


async def _connect() -> Connection:
    params = with_limits(connection.get_connection_params(), **LANE_LIMITS)
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
        row = await (await pg.execute(READ_ONLY)).fetchone()
    except BaseException:
        await pg.close()
        raise
    return row is None or bool(row[0])


@contextmanager
def _django_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _as_django(error) from error


def _as_django(error: psycopg.Error) -> utils.Error:
    """Return Django's error of the same name (PEP 249).

    A database that cannot be worked with yet is not available, whatever PEP 249 calls it.
    """
    if is_lost(error.sqlstate) or error.sqlstate in NOT_READY:
        return utils.OperationalError(*error.args)
    kinds = (getattr(utils, kind.__name__, None) for kind in type(error).__mro__)
    kind: type[utils.Error] = next(kind for kind in kinds if kind is not None)
    return kind(*error.args)
