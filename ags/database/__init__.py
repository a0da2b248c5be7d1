"""The database of API requests: one interface with two implementations.

On PostgreSQL, `manage.py serve` uses asynchronous connections (`postgresql.py`). SQLite, `runserver` and
Django's test clients use Django's connection of a thread (`django_database.py`): `runserver` and the test
clients run each request in a new event loop, and an asynchronous connection cannot outlive its loop.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from django.db import connection

from ags.database import django_database, lane
from ags.database.django_database import DjangoDatabase
from ags.database.lane import Lane
from ags.database.postgresql import INSERTS, READS, UPDATES, PostgreSQL

__all__ = [
    "INSERTS",
    "READS",
    "UPDATES",
    "Database",
    "Transaction",
    "close_database",
    "fetch_all",
    "get_database",
    "get_serving_loop",
    "open_database",
    "run_with_orm",
    "transaction",
]

_T = TypeVar("_T")

Database = PostgreSQL | DjangoDatabase
"""Both have the methods that `PostgreSQL` documents."""

Transaction = lane.Transaction | django_database.Transaction

_databases: dict[asyncio.AbstractEventLoop, Database] = {}
_temporary_databases: WeakKeyDictionary[asyncio.AbstractEventLoop, DjangoDatabase] = WeakKeyDictionary()
"""For event loops of one request, and of ASGI servers without lifespan events."""


def get_database() -> Database:
    loop = asyncio.get_running_loop()
    return _databases.get(loop) or _temporary_databases.setdefault(loop, DjangoDatabase())


def open_database(lane_type: type[Lane] = Lane) -> None:
    is_postgresql = connection.vendor == "postgresql"
    _databases[asyncio.get_running_loop()] = PostgreSQL(lane_type) if is_postgresql else DjangoDatabase()


async def close_database() -> None:
    database = _databases.pop(asyncio.get_running_loop(), None)
    if database is not None:
        await database.close()


def get_serving_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that serves the requests of this process."""
    return next((loop for loop in tuple(_databases) if loop.is_running()), None)


async def fetch_all(statement: str, params: Mapping[str, Any], kind: str = UPDATES) -> Sequence[Any]:
    return await get_database().fetch_all(statement, params, kind)


def transaction() -> AbstractAsyncContextManager[Transaction]:
    return get_database().transaction()


async def run_with_orm(function: Callable[..., _T], *args: Any) -> _T:
    return await get_database().run_with_orm(function, *args)
