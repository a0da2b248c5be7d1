"""Database connections of the serving process: bounded, and never found dead by a request."""

from __future__ import annotations

import select
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

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


def with_limits(parameters: dict[str, Any], **other: int) -> dict[str, Any]:
    """Return parameters of a connection with the limits as start-up options, which a pooler would refuse.

    `other`: limits that replace LIMITS, or are added to them, in milliseconds.
    """
    if settings.AGS_DATABASE_POOLER != "none":
        return parameters
    limits = [f"-c {name}={milliseconds}" for name, milliseconds in {**LIMITS, **other}.items()]
    return {**parameters, "options": " ".join([parameters.get("options", ""), *limits])}


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
