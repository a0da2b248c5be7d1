"""Timeouts of database connections, and detection of broken connections."""

import select
from typing import Any

from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

TIMEOUTS = {"statement_timeout": 1500, "lock_timeout": 1500}
"""Timeouts of PostgreSQL in milliseconds. Behind a pooler, they must be set for the database role."""

RESPONSE_TIMEOUT = 1.8
"""Seconds after which a connection is closed, if PostgreSQL hangs and does not enforce its own timeouts."""


def with_timeouts(parameters: dict[str, Any], **timeouts: int) -> dict[str, Any]:
    """Add TIMEOUTS as startup options, which a pooler rejects. `timeouts`: others, in milliseconds."""
    if settings.AGS_DATABASE_POOLER != "none":
        return parameters
    options = [f"-c {name}={milliseconds}" for name, milliseconds in {**TIMEOUTS, **timeouts}.items()]
    return {**parameters, "options": " ".join([parameters.get("options", ""), *options])}


READ_ONLY_QUERY = "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean"
"""Returns true on a standby and in a read-only database."""


def close_if_read_only() -> None:
    """Close a connection to a read-only database, so that the next query connects to the new primary."""
    database = connections[DEFAULT_DB_ALIAS]
    if database.vendor != "postgresql":
        return
    with database.cursor() as cursor:
        cursor.execute(READ_ONLY_QUERY)
        (read_only,) = cursor.fetchone()
    if read_only and not database.in_atomic_block:
        database.close()


def close_broken_connection() -> None:
    """Close it without a query: if it has failed, or has data to read because the server has closed it."""
    database = connections[DEFAULT_DB_ALIAS]
    pg = database.connection
    if pg is None or database.in_atomic_block:
        return
    if database.errors_occurred:
        database.close_if_unusable_or_obsolete()
    elif database.vendor == "postgresql" and (pg.closed or _has_data(pg)):
        database.close()


def _has_data(pg: Any) -> bool:
    poll = select.poll()
    poll.register(pg.fileno(), select.POLLIN | select.POLLHUP)
    return bool(poll.poll(0))
