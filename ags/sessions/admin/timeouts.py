"""A time limit for statements of pages that may read many rows."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import OperationalError, connection, transaction

SEARCH_TIMEOUT = 1000
"""Milliseconds for each of the statements of a search. Shorter than the timeouts of all statements."""

QUERY_CANCELED = "57014"
"""The SQLSTATE of a statement that has exceeded the limit."""


class StatementTimeout(Exception):
    """A statement has exceeded the limit."""


@contextmanager
def statement_timeout(milliseconds: int) -> Iterator[None]:
    """Limit the time of each statement, on PostgreSQL. Raises StatementTimeout."""
    if connection.vendor != "postgresql":
        yield
        return
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            # JIT compilation counts towards the timeout, and can take longer than it.
            cursor.execute(f"SET LOCAL jit = off; SET LOCAL statement_timeout = {milliseconds}")
            yield
            # Reset for the other statements of an outer transaction.
            cursor.execute("SET LOCAL jit TO DEFAULT; SET LOCAL statement_timeout TO DEFAULT")
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != QUERY_CANCELED:
            raise
        raise StatementTimeout from error
