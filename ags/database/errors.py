"""Errors of PostgreSQL, and their translation to Django's database errors."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from django.db import utils

CONNECTION_LOST_SQLSTATES = frozenset({"25006", "57P01", "57P02", "57P03", "57P04", "57P05"})
"""SQLSTATEs after which a connection is closed: read-only transaction, or closed by the server.

After a failover, a persistent connection may lead to a standby, which still answers queries.
"""

NOT_READY_SQLSTATES = frozenset({"25006", "42P01", "42703"})
"""SQLSTATEs of a database that is read-only or not migrated."""


def is_connection_lost(sqlstate: str | None) -> bool:
    # Class 08 is "connection exception".
    return sqlstate is not None and (sqlstate in CONNECTION_LOST_SQLSTATES or sqlstate.startswith("08"))


def is_unavailable(error: utils.Error) -> bool:
    """Return whether the statement may succeed later, also if Django has translated the error."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    return isinstance(error, utils.OperationalError | utils.InterfaceError) or sqlstate in NOT_READY_SQLSTATES


@contextmanager
def translate_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise to_django_error(error) from error


def to_django_error(error: psycopg.Error) -> utils.Error:
    """Return Django's error of the same name (PEP 249); OperationalError if the database is not ready."""
    if is_connection_lost(error.sqlstate) or error.sqlstate in NOT_READY_SQLSTATES:
        return utils.OperationalError(*error.args)
    kinds = (getattr(utils, kind.__name__, None) for kind in type(error).__mro__)
    kind: type[utils.Error] = next(kind for kind in kinds if kind is not None)
    return kind(*error.args)
