"""Connections to PostgreSQL: an observer of those of a test, and a proxy that breaks them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import psycopg
import pytest
from django.db import Error, connection

from ags.database.lane import Lane
from ags.database.outage import Outage
from tests.support.event_loop import run_in_event_loop, wait_until_async

NAME = "test_postgresql"
PID = "SELECT pg_backend_pid()"
LOCK = 4711
TAKE_LOCK = f"SELECT 'taken' FROM pg_advisory_xact_lock({LOCK})"

Test = Callable[[Lane], Coroutine[Any, Any, None]]


def run_with_lane(test: Test) -> None:
    """Run a test with a lane."""

    async def run_and_close() -> None:
        database = Lane(Outage())
        try:
            await test(database)
        finally:
            await database.close()
            await database.outage.close()

    run_in_event_loop(run_and_close())


async def fetch_value(database: Lane, statement: str, **params: Any) -> Any:
    ((value,),) = await database.fetch_all(statement, params)
    return value


async def fetch_error(database: Lane, statement: str = PID) -> Error:
    """Return the error of a statement."""
    with pytest.raises(Error) as raised:
        await database.fetch_all(statement, {})
    return raised.value


class Observer:
    """Another connection to the database, which observes those of the test."""

    def __init__(self, pg: psycopg.Connection[Any]) -> None:
        self.pg = pg

    def execute(self, statement: str) -> list[Any]:
        done = self.pg.execute(statement)
        return [row[0] for row in done.fetchall()] if done.description else []

    def pids(self, condition: str = "true") -> list[int]:
        """Return the PIDs of the backends of the test."""
        return self.execute(
            "SELECT pid FROM pg_stat_activity"
            f" WHERE datname = current_database() AND application_name = '{NAME}' AND {condition}"
        )

    def hold_lock(self) -> None:
        self.execute(f"SELECT pg_advisory_lock({LOCK})")

    def release_lock(self) -> None:
        self.execute(f"SELECT pg_advisory_unlock({LOCK})")

    def is_waiting(self) -> bool:
        """Return True if a statement waits for the lock."""
        return bool(self.pids("wait_event_type = 'Lock'"))

    async def start_waiting(self, database: Lane, statement: str = TAKE_LOCK) -> asyncio.Task[Any]:
        """Start a statement; return its task when it waits for the lock."""
        task = asyncio.create_task(database.fetch_all(statement, {}))
        await wait_until_async(self.is_waiting, "no statement waits for the lock")
        return task


class Proxy:
    """A proxy before PostgreSQL that can refuse, abort and freeze connections."""

    def __init__(self) -> None:
        self.refuses = False
        self.may_forward = asyncio.Event()
        self.may_forward.set()
        self.accepted = 0
        self.open: set[asyncio.StreamWriter] = set()
        self.most_open = 0
        self.received = b""

    async def __aenter__(self) -> Proxy:
        db_settings = connection.settings_dict
        host = db_settings["OPTIONS"].pop("host", None) or db_settings["HOST"] or "127.0.0.1"
        port = int(db_settings["OPTIONS"].pop("port", None) or db_settings["PORT"] or 5432)
        self._upstream = (
            (asyncio.open_unix_connection, (f"{host}/.s.PGSQL.{port}",))
            if host.startswith("/")
            else (asyncio.open_connection, (host, port))
        )
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        db_settings["OPTIONS"] |= {"host": "127.0.0.1", "port": self._server.sockets[0].getsockname()[1]}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.abort_connections()
        await wait_until_async(lambda: not self.open, "the proxy does not stop")

    def abort_connections(self) -> None:
        """Abort all connections."""
        self.may_forward.set()
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
                await self.may_forward.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


WRITE = "WITH nothing AS (DELETE FROM ags_sessions_lease WHERE FALSE) SELECT 1"
