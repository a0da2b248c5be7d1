"""The database of a request: one interface, and two implementations of it.

On PostgreSQL, `manage.py serve` uses an asynchronous connection (`postgresql.py`). SQLite, `runserver` and
Django's test clients use Django's connection of a thread (`django_database.py`): the last two run each
request in an event loop of its own, which an asynchronous connection would not outlive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from django.db import connection

from ags.database.django_database import DjangoDatabase
from ags.database.postgresql import PostgreSQL


class Database(Protocol):
    """What a request needs of a database."""

    max_batch_size: int
    """Rows of several requests that one statement may write."""

    @property
    def is_available(self) -> bool:
        """Whether statements are executed, and do not fail at once."""

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], *, read_only: bool = False
    ) -> Sequence[Any]:
        """Execute a statement; return its rows once it is committed. Raises Django's database errors.

        One that is `read_only` does not wait for those that are not, which may wait for rows.
        """


_opened: dict[asyncio.AbstractEventLoop, PostgreSQL] = {}
_django = DjangoDatabase()


def database() -> Database:
    """Return the database of the running event loop."""
    return _opened.get(asyncio.get_running_loop(), _django)


def open_database() -> None:
    """Give the running event loop a connection of its own, if the database is PostgreSQL."""
    if connection.vendor == "postgresql":
        _opened[asyncio.get_running_loop()] = PostgreSQL()


async def close_database() -> None:
    """Close what `open_database` has opened."""
    opened = _opened.pop(asyncio.get_running_loop(), None)
    if opened is not None:
        await opened.close()


async def fetch_all(statement: str, params: Mapping[str, Any], *, read_only: bool = False) -> Sequence[Any]:
    """Execute a statement as `Database.fetch_all` does."""
    return await database().fetch_all(statement, params, read_only=read_only)
