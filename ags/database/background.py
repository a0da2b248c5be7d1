"""Django's connection of a thread that works in the background of a process that serves requests."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connection, connections, transaction

STATEMENT_TIMEOUT, LOCK_TIMEOUT = "10s", "1s"


def use_background_connection() -> None:
    """Exempt this thread from the timeouts of requests. Call it before the first statement."""
    database = connections[DEFAULT_DB_ALIAS]
    if database.vendor == "postgresql":
        database.is_background = True  # type: ignore[attr-defined] # of our engine


@contextmanager
def limit_statements() -> Iterator[None]:
    """Limit the statements of a block, which is a transaction on PostgreSQL."""
    if connection.vendor != "postgresql":  # a transaction would lock the whole database
        yield
        return
    with transaction.atomic():
        with connection.cursor() as cursor:
            # For this transaction only: the connection may belong to a pooler.
            cursor.execute(
                "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)",
                [STATEMENT_TIMEOUT, LOCK_TIMEOUT],
            )
        yield
