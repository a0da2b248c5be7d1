"""The state of an outage of PostgreSQL, which the connections of an event loop share."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import psycopg

from ags.database.async_connection import Connection, open_connection
from ags.database.engine.base import circuit_breaker

if TYPE_CHECKING:
    from ags.database.lane import Lane

PROBE_INTERVAL = 0.2
"""Seconds between two attempts to reconnect during an outage."""

log = logging.getLogger("ags.database")


class Outage:
    """The outage state: during an outage, statements fail immediately, and one task tries to reconnect."""

    def __init__(self) -> None:
        self.lanes: list[Lane] = []
        self._error: psycopg.Error | None = None
        self._began_at = 0.0
        self._past_seconds = 0.0
        self.number = 0
        self._probe_task: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    @property
    def is_active(self) -> bool:
        return self._error is not None

    @property
    def seconds(self) -> float:
        """The duration of all outages, including the current one. `number` counts them."""
        return self._past_seconds + (time.monotonic() - self._began_at if self.is_active else 0.0)

    def begin(self, error: psycopg.Error) -> None:
        if self._error is None:
            self._error = error
            self._began_at = time.monotonic()
            self.number += 1
            # The message of an error of a connection contains no value of a statement.
            cause = str(error).partition("\n")[0] or type(error).__qualname__
            log.error("the database is unavailable", extra={"cause": cause, "sqlstate": error.sqlstate})
            self._probe_task = asyncio.create_task(self._probe())

    def raise_if_active(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    async def connect(self) -> Connection:
        """Raises psycopg's errors, immediately during an outage."""
        self.raise_if_active()
        pg, self._connection = self._connection, None
        if pg is not None and pg.is_usable:
            return pg
        try:
            return await open_connection()
        except psycopg.Error as error:
            self.begin(error)
            raise

    async def close(self) -> None:
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
                pg = await open_connection()
                if not await pg.is_read_only():
                    self._connection, self._error = pg, None
                    circuit_breaker.close()
                    seconds = time.monotonic() - self._began_at
                    self._past_seconds += seconds
                    log.warning("the database is available again", extra={"seconds": round(seconds, 1)})
                    return
                await pg.close()
            except psycopg.Error:
                pass
            except Exception as error:
                log.error("the probe of the database failed", exc_info=error)
            await asyncio.sleep(PROBE_INTERVAL)
