"""Statements of an event loop on an asynchronous connection to PostgreSQL."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import connection, utils
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.types.string import TextLoader
from psycopg.waiting import READY_R, READY_W, WAIT_W, Ready

from ags.database.django_connections import ANSWER_LIMIT, NOT_READY, READ_ONLY, is_lost, with_limits

PROBE_INTERVAL = 0.2
"""Seconds between two attempts to connect to a PostgreSQL that is not available."""

CHECK_INTERVAL = 1.0
"""Seconds between two looks whether a connection that is only read from leads to an old primary."""

GRACE = 0.01
"""Seconds for which an answer is waited for once more than the limit: the event loop may have been busy."""

log = logging.getLogger("ags.database")


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
    """Two lanes: statements that only read do not wait for those that may wait for a row."""

    max_batch_size = 32

    def __init__(self) -> None:
        self._writing, self._reading = Lane(), Lane(only_reads=True)

    @property
    def is_available(self) -> bool:
        """Whether PostgreSQL was available to the last statements, or has been since."""
        return self._writing.is_available and self._reading.is_available

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], *, read_only: bool = False
    ) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""
        lane = self._reading if read_only else self._writing
        return await lane.fetch_all(statement, params)

    async def close(self) -> None:
        """Close the connections."""
        await self._writing.close()
        await self._reading.close()


class Lane:
    """One connection, which is opened for the first statement and replaced when it is lost.

    While PostgreSQL is not available, statements fail at once, and one task tries to connect.

    After a failover, a connection may lead to the old primary. A statement that writes shows it; where a lane
    `only_reads`, it is asked once in `CHECK_INTERVAL`.
    """

    def __init__(self, *, only_reads: bool = False) -> None:
        self._only_reads = only_reads
        self._checked_at = 0.0
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._outage: psycopg.Error | None = None
        self._probing: asyncio.Task[None] | None = None

    @property
    def is_available(self) -> bool:
        """Whether PostgreSQL was available to the last statement, or has been since."""
        return self._outage is None

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement, one at a time; return its rows. Raises Django's database errors.

        On a connection that has become read-only, the statement has done nothing: it is executed once more,
        on a new connection.
        """
        async with self._turn:
            try:
                return await self._execute(statement, params)
            except psycopg.errors.ReadOnlySqlTransaction:
                pass
            except psycopg.Error as error:
                raise _as_django(error) from error
            try:
                return await self._execute(statement, params)
            except psycopg.Error as error:
                if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                    self._begin_outage(error)
                raise _as_django(error) from error

    async def close(self) -> None:
        """Close the connection."""
        probing, self._probing = self._probing, None
        if probing is not None:
            probing.cancel()
            await asyncio.wait([probing])  # it may be connecting
        await self._drop()

    async def _execute(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        pg = await self._connected()
        try:
            await pg.statements.execute(statement, params, prepare=True)
            return await pg.statements.fetchall()
        except BaseException as error:
            is_active = pg.info.transaction_status == TransactionStatus.ACTIVE
            if isinstance(error, psycopg.Error) and is_active:  # no answer came, not even an error
                self._begin_outage(error)
            if is_active or pg.closed or is_lost(getattr(error, "sqlstate", None)):
                await self._drop()
            raise

    async def _connected(self) -> Connection:
        if self._outage is not None:
            raise self._outage.with_traceback(None)
        if self._connection is not None and await self._is_old_primary(self._connection):
            await self._drop()
        pg = self._connection
        if pg is None or not pg.is_usable:
            await self._drop()
            try:
                pg = self._connection = await _connect()
            except psycopg.Error as error:
                self._begin_outage(error)
                raise
        return pg

    async def _is_old_primary(self, pg: Connection) -> bool:
        now = pg.loop.time()
        if not (self._only_reads and pg.is_usable and now >= self._checked_at + CHECK_INTERVAL):
            return False
        self._checked_at = now
        return await _is_read_only(pg)

    async def _drop(self) -> None:
        if self._connection is not None:
            pg, self._connection = self._connection, None
            await pg.close()

    def _begin_outage(self, error: psycopg.Error) -> None:
        if self._outage is None:
            self._outage = error
            self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while self._outage is not None:
            try:
                pg = await _connect()
                if not await _is_read_only(pg):
                    self._connection, self._outage = pg, None
                    return
                await pg.close()
            except psycopg.Error:
                pass
            except Exception as error:
                log.error("the probe of the database failed", exc_info=error)
            await asyncio.sleep(PROBE_INTERVAL)


async def _connect() -> Connection:
    params = with_limits(connection.get_connection_params())
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


def _as_django(error: psycopg.Error) -> utils.Error:
    """Return Django's error of the same name (PEP 249).

    A database that cannot be worked with yet is not available, whatever PEP 249 calls it.
    """
    if is_lost(error.sqlstate) or error.sqlstate in NOT_READY:
        return utils.OperationalError(*error.args)
    kinds = (getattr(utils, kind.__name__, None) for kind in type(error).__mro__)
    kind: type[utils.Error] = next(kind for kind in kinds if kind is not None)
    return kind(*error.args)
