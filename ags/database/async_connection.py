"""An asynchronous connection to PostgreSQL with a time limit."""

import asyncio
from typing import Any

import psycopg
from django.db import connection
from psycopg import sql
from psycopg.types.string import TextLoader
from psycopg.waiting import READY_R, READY_W, WAIT_W, Ready

from ags.database.django_connections import READ_ONLY_QUERY, RESPONSE_TIMEOUT, with_timeouts

LANE_TIMEOUTS = {"lock_timeout": 500, "idle_in_transaction_session_timeout": 5000}
"""Milliseconds. Shorter than TIMEOUTS because a batch delays several requests.

The second one releases the locks of a process that is suspended within a transaction.
"""

TIMEOUT_GRACE = 0.01
"""Seconds to wait after RESPONSE_TIMEOUT: if the event loop was busy, the response may already be there."""


class Connection(psycopg.AsyncConnection[Any]):
    """Waits for a response for at most RESPONSE_TIMEOUT, and detects immediately that PostgreSQL closes it.

    psycopg registers the socket with the event loop for each statement. This class registers it once, so that
    the event loop also watches an idle connection.
    """

    def watch(self) -> None:
        """Call this once, after connecting."""
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
        """Raises psycopg.OperationalError after RESPONSE_TIMEOUT."""
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

    async def is_read_only(self) -> bool:
        try:
            row = await (await self.execute(READ_ONLY_QUERY)).fetchone()
        except BaseException:
            await self.close()
            raise
        return row is None or bool(row[0])

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


async def open_connection() -> Connection:
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
