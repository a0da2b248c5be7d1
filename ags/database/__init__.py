"""The database of a request: one interface, and two implementations of it.

On PostgreSQL, `manage.py serve` uses asynchronous connections (`postgresql.py`). SQLite, `runserver` and
Django's test clients use Django's connection of a thread (`django_database.py`): the last two run each
request in an event loop of its own, which an asynchronous connection would not outlive.
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
    "database",
    "fetch_all",
    "fetch_one",
    "open_database",
    "run_with_orm",
    "serving_loop",
    "transaction",
]

_T = TypeVar("_T")


class Transaction(Protocol):
    """A transaction that is open."""

    async def fetch_all(self, statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""


class Database(Protocol):
    """What a request needs of a database."""

    max_batch_size: int
    """Rows of several requests that one statement may write."""

    @property
    def is_available(self) -> bool:
        """Whether statements are executed, and do not fail at once."""

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], kind: str = UPDATES
    ) -> Sequence[Any]:
        """Execute a statement; return its rows once it is committed. Raises Django's database errors.

        Statements of one `kind` wait for each other. READS and INSERTS do not wait for UPDATES, which wait
        for rows that others have locked.
        """

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Open a transaction: committed at the end of the block, rolled back where that raises.

        Raises Django's database errors.
        """

    async def run_with_orm(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call a function that uses the ORM, in the thread for this; return what it returns.

        Raises what it raises, and OperationalError at once while `is_available` is false.
        """


_opened: dict[asyncio.AbstractEventLoop, PostgreSQL | DjangoDatabase] = {}
_others: WeakKeyDictionary[asyncio.AbstractEventLoop, DjangoDatabase] = WeakKeyDictionary()
"""The databases of event loops that last for one request, or whose server starts nothing."""


def database() -> Database:
    """Return the database of the running event loop."""
    loop = asyncio.get_running_loop()
    return _opened.get(loop) or _others.setdefault(loop, DjangoDatabase())


def open_database() -> None:
    """Give the running event loop connections of its own, if the database is PostgreSQL."""
    is_postgresql = connection.vendor == "postgresql"
    _opened[asyncio.get_running_loop()] = PostgreSQL() if is_postgresql else DjangoDatabase()


async def close_database() -> None:
    """Close the connections of the running event loop."""
    opened = _opened.pop(asyncio.get_running_loop(), None)
    if opened is not None:
        await opened.close()


def serving_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that serves the requests of this process, None where none does."""
    return next((loop for loop in tuple(_opened) if loop.is_running()), None)


async def fetch_all(statement: str, params: Mapping[str, Any], kind: str = UPDATES) -> Sequence[Any]:
    """Execute a statement as `Database.fetch_all` does."""
    return await database().fetch_all(statement, params, kind)


async def fetch_one(statement: str, params: Mapping[str, Any], kind: str = UPDATES) -> Any:
    """Execute a statement as `Database.fetch_all` does; return its first row, None where it has none."""
    return next(iter(await fetch_all(statement, params, kind)), None)


def transaction() -> AbstractAsyncContextManager[Transaction]:
    """Open a transaction as `Database.transaction` does."""
    return database().transaction()


async def run_with_orm(function: Callable[..., _T], *args: Any) -> _T:
    """Call a function as `Database.run_with_orm` does."""
    return await database().run_with_orm(function, *args)
