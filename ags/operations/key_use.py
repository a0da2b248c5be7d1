"""Counting how the keys of tenants are used. A process stores its counts later: no request waits for it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from django.db import connection, transaction

from ags.database import run_with_orm
from ags.database.clock import get_database_time
from ags.database.tasks import PerEventLoop, PeriodicTask

STORE_INTERVAL = 20.0
"""Seconds between two stores of a process."""

PERIOD = 600.0
"""Seconds whose counts are in one row."""

BATCH_SIZE = 500
"""Rows that a transaction stores: requests may wait for the same connection."""

CLOSE_TIMEOUT = 2.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Count:
    """The columns of `KeyUse`. `accepted_at` and `refused_at`: times of `time.monotonic()`."""

    accepted: int = 0
    refused: int = 0
    accepted_at: float | None = None
    refused_at: float | None = None
    min_age: float | None = None
    max_age: float | None = None

    def add(self, other: Count) -> None:
        self.accepted += other.accepted
        self.refused += other.refused
        self.accepted_at = other.accepted_at or self.accepted_at
        self.refused_at = other.refused_at or self.refused_at
        if other.min_age is not None and other.max_age is not None:
            self.min_age = min(other.min_age, other.min_age if self.min_age is None else self.min_age)
            self.max_age = max(other.max_age, other.max_age if self.max_age is None else self.max_age)


class KeyUseCounter:
    """The counts of a process that are not stored yet, for one event loop."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], Count] = {}
        self._task = PeriodicTask(self._store, STORE_INTERVAL)

    def add(self, tenant_id: str, key_id: int, count: Count) -> None:
        counts = self._counts
        known = counts.get((tenant_id, key_id))
        if known is None:
            counts[tenant_id, key_id] = count
        else:
            known.add(count)

    async def close(self) -> None:
        """Store the counts, in 2 seconds at most."""
        await self._task.close(CLOSE_TIMEOUT)
        if self._counts:
            log.warning("use of keys may be lost", extra={"number": len(self._counts)})

    async def _store(self) -> None:
        """Raises nothing. After an error, the counts are stored with the next ones."""
        remaining = len(self._counts)
        while remaining > 0:
            batch = {key: self._counts.pop(key) for key in list(islice(self._counts, BATCH_SIZE))}
            remaining -= len(batch)
            is_stored = False
            try:
                await run_with_orm(store_counts, batch)
                is_stored = True
            except Exception as error:  # noqa: BLE001 - the task must continue
                log.warning("use of keys not stored: %s", type(error).__name__)
                return
            finally:
                if not is_stored:  # also if it is cancelled at shutdown
                    self._take_back(batch)

    def _take_back(self, batch: Mapping[tuple[str, int], Count]) -> None:
        for key, count in batch.items():
            newer = self._counts.get(key)
            if newer is not None:
                count.add(newer)
            self._counts[key] = count


def store_counts(counts: Mapping[tuple[str, int], Count]) -> None:
    """Add the counts to the current period. Raises Django's database errors."""
    now = get_database_time()
    adapt = connection.ops.adapt_datetimefield_value

    def to_time(monotonic: float | None) -> Any:
        return monotonic and adapt(now - timedelta(seconds=time.monotonic() - monotonic))

    rows = [
        {
            "tenant": tenant_id,
            "key": key_id,
            "began_at": adapt(datetime.fromtimestamp(now.timestamp() // PERIOD * PERIOD, UTC)),
            "accepted": count.accepted,
            "refused": count.refused,
            "accepted_at": to_time(count.accepted_at),
            "refused_at": to_time(count.refused_at),
            "min_age": count.min_age,
            "max_age": count.max_age,
        }
        # Sorted, so that all processes lock rows in the same order and cannot deadlock.
        for (tenant_id, key_id), count in sorted(counts.items())
    ]
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # Requests need this connection to read the configuration: it must not wait long for a lock.
            cursor.execute("SET LOCAL lock_timeout = '100ms'")
        cursor.executemany(_add_sql(), rows)


def _add_sql() -> str:
    def extreme(column: str, comparison: str) -> str:
        """Return the larger or smaller value. The functions for it treat NULL differently."""
        old, new = f"tenants_keyuse.{column}", f"excluded.{column}"
        return f"{column} = CASE WHEN {old} IS NULL OR {new} {comparison} {old} THEN {new} ELSE {old} END"

    # From the table of keys: the key may have been deleted, together with its tenant.
    return f"""
INSERT INTO tenants_keyuse
       (tenant_id, key_id, began_at, accepted, refused, accepted_at, refused_at, min_age, max_age)
SELECT tenant_id, id, %(began_at)s, %(accepted)s, %(refused)s, %(accepted_at)s, %(refused_at)s, %(min_age)s,
       %(max_age)s
  FROM tenants_key
 WHERE tenant_id = %(tenant)s AND id = %(key)s
    ON CONFLICT (tenant_id, key_id, began_at) DO UPDATE
   SET accepted = tenants_keyuse.accepted + excluded.accepted,
       refused = tenants_keyuse.refused + excluded.refused,
       {extreme("accepted_at", ">")},
       {extreme("refused_at", ">")},
       {extreme("min_age", "<")},
       {extreme("max_age", ">")}
"""  # noqa: S608 - built from constants


key_use_counters = PerEventLoop(KeyUseCounter)


def count_key_use(tenant_id: str, key_id: int, status: int, age: float | None) -> None:
    """Count a request with a token that the key has signed. `age`: that of the token in seconds."""
    counter = key_use_counters.objects.get(asyncio.get_running_loop())
    if counter is not None:
        now = time.monotonic()
        is_accepted = status < 400
        count = Count(1, 0, now, None, age, age) if is_accepted else Count(0, 1, None, now, age, age)
        counter.add(tenant_id, key_id, count)
