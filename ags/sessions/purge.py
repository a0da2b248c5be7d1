"""Deleting what is dead, a little at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.db.models.functions import Now

from ags.sessions.models import SessionToken

BATCH = 1000
"""Rows that one statement deletes: short enough that nobody waits for it."""

_LOCK = 0x4147_5350  # "AGSP", the number under which PostgreSQL knows who purges


class AlreadyRunning(Exception):
    """Another purge is at work."""


def purge(batch: int = BATCH) -> Iterator[int]:
    """Delete session tokens that are dead by the database's clock; yield the number of each batch.

    Raises `AlreadyRunning` before anything is deleted.
    """
    with _only_one():
        while True:
            dead = SessionToken.unscoped.filter(dead_after__lte=Now()).order_by("dead_after")
            ids = list(dead.values_list("pk", flat=True)[:batch])
            # Nothing refers to these rows: one statement by primary key, committed at once.
            deleted, _ = SessionToken.unscoped.filter(pk__in=ids).delete()
            if deleted:
                yield deleted
            if len(ids) < batch:
                return


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the lock of the purge. SQLite has one writer at a time anyway, and small batches."""
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK])
        if not cursor.fetchone()[0]:
            raise AlreadyRunning
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])
