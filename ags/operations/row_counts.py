"""Counting the rows that a purge must still delete, and the others."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.db import Error, connection
from django.db.models import Model, QuerySet
from django.db.models.functions import Now

from ags.database.background import limit_statements
from ags.operations.expired import expired_querysets
from ags.operations.lease import LeaseHolder, read_lease
from ags.operations.purge import MAX_PAUSE, PAUSE_FACTOR
from ags.sessions.models import PurgeCount

LEASE = "row counts"

INTERVAL = timedelta(minutes=10)

CHUNK = 10_000
"""Rows that one statement counts."""

MAX_DEAD = 10_000_000
"""Dead rows of a kind and tenant that are counted."""

MAX_SMALL = 100_000
"""Rows of a table that are counted. PostgreSQL has an estimate of the others."""


class _Stopped(Exception):
    pass


def count_rows_if_due(pause: Callable[[float], object]) -> bool:
    """Count the rows of each kind every `INTERVAL`. Return True if they were counted now.

    Raises LeaseNotAvailable and Django's database errors. `pause`: called after each statement; if it returns
    True, the rows are not counted.
    """
    lease = LeaseHolder(LEASE)
    if not lease.acquire_if_due(read_lease(LEASE)):
        return False
    try:
        _store(*_count(lease, pause))
        lease.succeed(INTERVAL)
    except _Stopped:
        return False
    except Error:
        connection.close_if_unusable_or_obsolete()
        with suppress(Error):  # otherwise the statement that has failed would be repeated with each turn
            lease.postpone(INTERVAL)
        raise
    finally:
        lease.release()
    return True


def _count(
    lease: LeaseHolder, pause: Callable[[float], object]
) -> tuple[dict[str, type[Model]], Counter[str], dict[type[Model], int]]:
    """Return the model of each kind, the number of dead rows by kind, and of all rows by model."""

    def rest(started_at: float) -> float:
        if pause(min(PAUSE_FACTOR * (time.monotonic() - started_at), MAX_PAUSE)):
            raise _Stopped
        lease.renew()
        return time.monotonic()

    started_at = time.monotonic()
    models: dict[str, type[Model]] = {}
    dead = Counter[str]()
    for kind, queryset in expired_querysets():
        models[kind] = queryset.model
        for number in _count_in_chunks(queryset):
            dead[kind] += number
            started_at = rest(started_at)
    rows: dict[type[Model], int] = {}
    for model in set(models.values()):
        rows[model] = _count_table(model._meta.db_table)
        started_at = rest(started_at)
    return models, dead, rows


def _count_in_chunks(queryset: QuerySet[Any]) -> Iterator[int]:
    (order,) = queryset.query.order_by
    remaining, counted = queryset, 0
    while counted < MAX_DEAD:
        with limit_statements():
            last = list(remaining.values_list(order, flat=True)[CHUNK - 1 : CHUNK])
            chunk = remaining.filter(**{f"{order}__lte": last[0]}) if last else remaining
            number = chunk.order_by().count()
        yield number
        counted += number
        if not last:
            return
        remaining = queryset.filter(**{f"{order}__gt": last[0]})


def _count_table(table: str) -> int:
    """Return the number of rows: an estimate if there are more than `MAX_SMALL` on PostgreSQL."""
    with limit_statements(), connection.cursor() as cursor:
        if connection.vendor != "postgresql":
            cursor.execute(f"SELECT count(*) FROM {table}")  # noqa: S608 - of our models
            return int(cursor.fetchone()[0])
        cursor.execute("SELECT reltuples FROM pg_class WHERE oid = %s::regclass", [table])
        (estimate,) = cursor.fetchone()
        if estimate > MAX_SMALL:
            return int(estimate)
        cursor.execute(
            f"SELECT count(*) FROM (SELECT FROM {table} LIMIT %s) AS counted",  # noqa: S608
            [MAX_SMALL + 1],
        )
        return int(cursor.fetchone()[0])


def _store(models: dict[str, type[Model]], dead: Counter[str], rows: dict[type[Model], int]) -> None:
    dead_rows = Counter[type[Model]]()
    for kind, model in models.items():
        dead_rows[model] += dead[kind]
    # Kinds that are no longer purged, such as those of a retention that was switched off
    PurgeCount.objects.exclude(kind__in=models).update(dead=None, alive=None, counted_at=None)
    for kind, model in models.items():
        alive = max(rows[model] - dead_rows[model], 0)
        PurgeCount.objects.update_or_create(
            kind=kind, defaults={"dead": dead[kind], "alive": alive, "counted_at": Now()}
        )
