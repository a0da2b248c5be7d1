"""A connection that executes statements one after another, and its transactions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from ags.database.async_connection import Connection
from ags.database.errors import is_connection_lost, to_django_error, translate_errors
from ags.database.outage import Outage
from ags.database.tasks import complete
from ags.database.threads import QueueTimeout, acquire

CHECK_INTERVAL = 1.0
"""Seconds between two checks whether a connection for READS still leads to the primary."""

PLAN_INTERVAL = 1.0
"""Seconds after which the cached plans of a connection are discarded.

PostgreSQL caches the plan of a prepared statement until a table has new statistics. A plan for an empty table
would scan the whole table for up to a minute after the table has grown (`autovacuum_naptime`).
"""


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

    @property
    def is_connected(self) -> bool:
        return self._connection is not None

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Retry once on a new connection if this one has become read-only: the statement had no effect.

        A statement that has started is completed even if the caller is cancelled.
        """
        await acquire(self._semaphore)
        return await complete(asyncio.create_task(self._fetch_all(statement, params)))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        await acquire(self._semaphore)
        try:
            with translate_errors():
                pg = await self._get_connection()
                await self.execute(pg, "BEGIN")
            try:
                yield Transaction(self, pg)
            except BaseException:
                await self._roll_back(pg)
                raise
            with translate_errors():
                await self.execute(pg, "COMMIT")
                if pg.statements.statusmessage != "COMMIT":  # a statement had failed
                    raise psycopg.errors.InFailedSqlTransaction("the transaction was rolled back")
        finally:
            self._semaphore.release()

    async def close_if_idle(self) -> None:
        """The connection that `Outage` opens replaces it."""
        if not self._semaphore.locked():
            await self._close_connection()

    async def close(self) -> None:
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
            raise to_django_error(error) from error
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
        now = pg.loop.time()
        if self._only_reads and pg.is_usable and now >= self._checked_at + CHECK_INTERVAL:
            self._checked_at = now
            return not await pg.is_read_only()
        return pg.is_usable

    async def _close_connection(self) -> None:
        if self._connection is not None:
            pg, self._connection = self._connection, None
            await pg.close()


class Transaction:
    def __init__(self, lane: Lane, pg: Connection) -> None:
        self._lane, self._pg = lane, pg

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        with translate_errors():
            try:
                return await self._lane.execute(self._pg, statement, params)
            except psycopg.errors.ReadOnlySqlTransaction as error:
                self._lane.outage.begin(error)
                raise
