"""The database interface on Django's connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from django.db import connection, connections
from django.db import transaction as django_transaction

from ags.database.postgresql import UPDATES
from ags.database.tasks import complete
from ags.database.threads import CONFIGURATION, DATABASE, acquire, run_in_thread

_T = TypeVar("_T")


class DjangoDatabase:
    max_batch_size = 1  # each request has its own transaction
    is_available = True
    connections = 0  # files
    outages = (0, 0.0)

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore()

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        async with self._connection() as transaction:
            return await transaction.fetch_all(statement, params)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        async with self._connection() as transaction:
            atomic = django_transaction.atomic()
            # Separate tasks: if the caller is cancelled, the transaction is still begun and ended.
            begin = asyncio.create_task(run_in_thread(atomic.__enter__, pool=DATABASE))
            error: BaseException | None = None
            try:
                await asyncio.shield(begin)
                yield transaction
            except BaseException as raised:
                error = raised
                raise
            finally:
                if not begin.done():
                    await asyncio.wait([begin])
                if begin.exception() is None:
                    end = run_in_thread(atomic.__exit__, error and type(error), error, None, pool=DATABASE)
                    await complete(asyncio.create_task(end))

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        return await run_in_thread(function, *args, pool=CONFIGURATION)

    async def close(self) -> None:
        await run_in_thread(connections.close_all, pool=DATABASE)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Transaction]:
        if _is_executing.get():
            yield Transaction()
            return
        await acquire(self._semaphore)
        try:
            yield Transaction()
        finally:
            self._semaphore.release()


_is_executing = ContextVar("_is_executing", default=False)
"""True if called during a statement: tests call the API from inside one."""


class Transaction:
    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
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
