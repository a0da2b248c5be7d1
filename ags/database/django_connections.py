"""Database connections of the serving process: bounded, and never found dead by a request."""

from __future__ import annotations

import select
import time
from typing import Any

import psycopg
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.postgresql.base import DatabaseWrapper
from psycopg.pq import TransactionStatus

LIMITS = {"statement_timeout": 1500, "lock_timeout": 1500}
"""Milliseconds that PostgreSQL itself keeps to. Behind a pooler they belong to the role of the server."""

ANSWER_LIMIT = 1.8
"""Seconds after which this side hangs up: reached only by a PostgreSQL too stuck to keep its own limit."""

LOST = frozenset({"25006", "57P01", "57P02", "57P03", "57P04", "57P05"})
"""SQLSTATEs after which a connection is closed: read only, or the server ends it.

After a failover, a kept connection may lead to a standby for ever. It answers, so asking does not show it.
"""

NOT_READY = frozenset({"25006", "42P01", "42703"})
"""SQLSTATEs of a database that answers, but cannot be worked with yet: read only, or not migrated."""

PAUSE = 1.0
"""Seconds in which a PostgreSQL that was stuck is not asked: else requests wait for it in turn."""


def bound_all_statements() -> None:
    """Give every statement of this process an end: a stuck database is a 503 within two seconds."""
    # Django has a signal for after a connection is made, and no hook before.
    setattr(DatabaseWrapper, "get_new_connection", _connect)  # noqa: B010 - mypy knows no other way


def with_limits(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a connection with the limits as start-up options, which a pooler would refuse."""
    if settings.AGS_DATABASE_POOLER != "none":
        return parameters
    limits = [f"-c {name}={milliseconds}" for name, milliseconds in LIMITS.items()]
    return {**parameters, "options": " ".join([parameters.get("options", ""), *limits])}


_connect_unbounded = DatabaseWrapper.get_new_connection


class _Pause:
    """Shared by all threads: whoever finds PostgreSQL stuck spares the others the wait."""

    def __init__(self) -> None:
        self._ends = 0.0

    def begin(self) -> None:
        self._ends = time.monotonic() + PAUSE

    def refuse(self) -> None:
        if time.monotonic() < self._ends:
            raise psycopg.OperationalError("PostgreSQL was stuck a moment ago")


_pause = _Pause()


def _connect(self: DatabaseWrapper, parameters: dict[str, Any]) -> Any:
    _pause.refuse()
    try:
        pg = _connect_unbounded(self, with_limits(parameters))
    except psycopg.errors.ConnectionTimeout:
        _pause.begin()
        raise
    wait = pg.wait

    def wait_a_while(generator: Any, **options: Any) -> Any:
        _pause.refuse()
        options.setdefault("timeout", ANSWER_LIMIT)
        try:
            return wait(generator, **options)
        except psycopg.Error as error:
            if pg.info.transaction_status == TransactionStatus.ACTIVE:  # no answer came, not even an error
                _pause.begin()
                pg.close()
            elif is_lost(error.sqlstate):
                self.close()  # the next statement connects anew
            raise

    pg.wait = wait_a_while
    return pg


def is_lost(sqlstate: str | None) -> bool:
    """Return whether to close the connection. Class 08 is "connection exception"."""
    return sqlstate is not None and (sqlstate in LOST or sqlstate.startswith("08"))


READ_ONLY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
"""Whether a connection leads to a database that cannot be written to."""


def is_read_only() -> bool:
    """Ask whether this thread's connection leads to a database that cannot be written to.

    Such a connection is closed, so that the next question finds the new primary. Raises Django's errors.
    """
    database = connections[DEFAULT_DB_ALIAS]
    if database.vendor != "postgresql":
        return False
    with database.cursor() as cursor:
        cursor.execute(READ_ONLY)
        (read_only,) = cursor.fetchone()
    if read_only and not database.in_atomic_block:
        database.close()
    return bool(read_only)


def drop_dead_connection() -> None:
    """Close this thread's idle connection if the server has hung up, or if it has failed before.

    A server that goes away says so on the socket: an idle connection whose socket has something to read is
    finished. Looking costs no statement and no round trip; Django connects anew at the next query.
    """
    database = connections[DEFAULT_DB_ALIAS]
    pg = database.connection
    if pg is None or database.in_atomic_block:
        return
    if database.errors_occurred:
        database.close_if_unusable_or_obsolete()
    elif database.vendor == "postgresql" and (pg.closed or _has_input(pg)):
        database.close()


def _has_input(pg: Any) -> bool:
    """Return whether an idle connection has something to read: as a rule, that PostgreSQL closes it."""
    poll = select.poll()
    poll.register(pg.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
