"""Statements on Django's connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import connection, connections
from django.db import transaction as django_transaction

from ags.database.postgresql import UPDATES
from ags.database.threads import CONFIGURATION, DATABASE, run_in_thread, take_turn

_T = TypeVar("_T")


class DjangoDatabase:
    """Django's connection of a thread: for SQLite, and for event loops that last for one request."""

    max_batch_size = 1  # the statement of a request belongs to its own transaction
    is_available = True

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore()

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""
        async with self._connection() as transaction:
            return await transaction.fetch_all(statement, params)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        """Open a transaction. Raises Django's database errors."""
        async with self._connection() as transaction:
            atomic = django_transaction.atomic()
            # Tasks of their own: where the caller is cancelled, the thread begins and ends the transaction.
            begun = asyncio.create_task(run_in_thread(atomic.__enter__, pool=DATABASE))
            error: BaseException | None = None
            try:
                await asyncio.shield(begun)
                yield transaction
            except BaseException as raised:
                error = raised
                raise
            finally:
                if not begun.done():
                    await asyncio.wait([begun])
                if begun.exception() is None:
                    end = run_in_thread(atomic.__exit__, error and type(error), error, None, pool=DATABASE)
                    await asyncio.shield(asyncio.create_task(end))

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Return what a function returns that uses the ORM. Raises what it raises."""
        return await run_in_thread(function, *args, pool=CONFIGURATION)

    async def close(self) -> None:
        """Close the connection."""
        await run_in_thread(connections.close_all, pool=DATABASE)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[_Transaction]:
        """Keep the connection from other requests. Raises WaitedTooLong."""
        if _is_executing.get():
            yield _Transaction()
            return
        await take_turn(self._turn)
        try:
            yield _Transaction()
        finally:
            self._turn.release()


_is_executing = ContextVar("_is_executing", default=False)
"""Whether this is called by a statement: by a test that has the API called while one is executed."""


class _Transaction:
    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows."""
        return await run_in_thread(_execute, statement, params, pool=DATABASE)


def _execute(statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
    outer = _is_executing.set(True)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement, params)
            rows: list[Any] = cursor.fetchall() if cursor.description else []
            return rows
    finally:
        _is_executing.reset(outer)
