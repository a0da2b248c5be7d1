"""The database of API requests: one interface with two implementations.

On PostgreSQL, `manage.py serve` uses asynchronous connections (`postgresql.py`). SQLite, `runserver` and
Django's test clients use Django's connection of a thread (`django_database.py`): `runserver` and the test
clients run each request in a new event loop, and an asynchronous connection cannot outlive its loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from django.db import connection

from ags.database.django_database import DjangoDatabase
from ags.database.postgresql import INSERTS, READS, UPDATES, PostgreSQL

__all__ = [
    "INSERTS",
    "READS",
    "UPDATES",
    "Database",
    "Transaction",
    "close_database",
    "fetch_all",
    "fetch_one",
    "get_database",
    "get_serving_loop",
    "open_database",
    "run_with_orm",
    "transaction",
]

_T = TypeVar("_T")


class Transaction(Protocol):
    """An open transaction."""

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""


class Database(Protocol):
    """The database interface of API requests."""

    max_batch_size: int
    """Maximum number of rows that one statement writes for several requests."""

    @property
    def is_available(self) -> bool:
        """False while statements fail without being executed."""

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute and commit a statement; return its rows. Raises Django's database errors.

        Statements of the same `kind` run one after another. READS and INSERTS do not wait for UPDATES, which
        may wait for row locks.
        """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction: committed at the end of the block, rolled back on an exception.

        Raises Django's database errors.
        """

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function that uses the ORM in a thread; return its result.

        Raises its errors, and OperationalError immediately while `is_available` is False.
        """


_databases: dict[asyncio.AbstractEventLoop, PostgreSQL | DjangoDatabase] = {}
_temporary_databases: WeakKeyDictionary[asyncio.AbstractEventLoop, DjangoDatabase] = WeakKeyDictionary()
"""For event loops of one request, and of ASGI servers without lifespan events."""


def get_database() -> Database:
    """Return the database of the running event loop."""
    loop = asyncio.get_running_loop()
    return _databases.get(loop) or _temporary_databases.setdefault(loop, DjangoDatabase())


def open_database() -> None:
    """Create the database of the running event loop."""
    is_postgresql = connection.vendor == "postgresql"
    _databases[asyncio.get_running_loop()] = PostgreSQL() if is_postgresql else DjangoDatabase()


async def close_database() -> None:
    """Close the connections of the running event loop."""
    database = _databases.pop(asyncio.get_running_loop(), None)
    if database is not None:
        await database.close()


def get_serving_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that serves the requests of this process, or None."""
    return next((loop for loop in tuple(_databases) if loop.is_running()), None)


async def fetch_all(statement: str, params: Mapping[str, Any], kind: str = UPDATES) -> Sequence[Any]:
    """See `Database.fetch_all`."""
    return await get_database().fetch_all(statement, params, kind)


async def fetch_one(statement: str, params: Mapping[str, Any], kind: str = UPDATES) -> Any:
    """Execute a statement with `fetch_all`; return its first row or None."""
    return next(iter(await fetch_all(statement, params, kind)), None)


def transaction() -> AbstractAsyncContextManager[Transaction]:
    """See `Database.transaction`."""
    return get_database().transaction()


async def run_with_orm(function: Callable[..., _T], *args: Any) -> _T:
    """See `Database.run_with_orm`."""
    return await get_database().run_with_orm(function, *args)
