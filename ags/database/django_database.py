"""Statements on Django's connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.utils import CursorWrapper

from ags.database.threads import run_in_thread


class DjangoDatabase:
    """Django's connection of a thread: for SQLite, and for event loops that last for one request."""

    max_batch_size = 1  # the statement of a request belongs to its own transaction
    is_available = True

    async def fetch_all(
        self, statement: str, params: Mapping[str, Any], *, read_only: bool = False
    ) -> Sequence[Any]:
        """Execute a statement; return its rows. Raises Django's database errors."""
        return await run_in_thread(execute, statement, params)


def execute(statement: str, params: Mapping[str, Any]) -> Sequence[Any]:
    """Execute a statement on this thread's connection; return its rows. Raises Django's database errors."""
    with _cursor() as cursor:
        cursor.execute(statement, params)
        rows: list[Any] = cursor.fetchall()
        return rows


class _PreparedCursor(psycopg.Cursor[Any]):
    """Has PostgreSQL parse and plan a statement once for each connection, where Django's would each time."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute, with the values beside the statement and not in it."""
        return super().execute(query, params, **{"prepare": True, **options})


def _cursor() -> CursorWrapper:
    database = connections[DEFAULT_DB_ALIAS]
    # A log of statements shows them with their values.
    if database.vendor != "postgresql" or database.queries_logged:
        return database.cursor()
    database.ensure_connection()
    # Wrapped by Django, so that errors and transactions stay its own.
    return database.make_cursor(_PreparedCursor(database.connection))  # type: ignore[arg-type] # any cursor will do
