"""Storing refused requests in the audit trail. No response waits for it, and a flood is limited."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Sequence
from itertools import islice

from django.db import Error, connection, transaction

from ags.database import run_with_orm
from ags.database.errors import is_unavailable
from ags.database.tasks import PerEventLoop, PeriodicTask
from ags.limits.memory import LocalCounters
from ags.server.shared_counter import SharedCounter
from ags.sessions.models import Event
from tenants.models import Tenant

MAX_PER_ADDRESS = 60
"""Events that a process stores in a minute for one client address and tenant."""

MAX_PER_MINUTE = 3000
"""Events that a process stores in a minute."""

MAX_QUEUED = 1000
BATCH_SIZE = 100

FLUSH_INTERVAL = 1.0
OMITTED_INTERVAL = 60
"""Seconds between the events that contain how many refusals were only counted."""

CLOSE_TIMEOUT = 2.0

log = logging.getLogger("ags.audit")

omitted_refusals = SharedCounter()
"""Refusals that were only counted, in all processes of the server."""


class RefusalQueue:
    """The refusals of a process that are not stored yet, for one event loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._omitted: Counter[str | None] = Counter()
        self._by_address = LocalCounters(60)
        self._total = LocalCounters(60)
        self._omitted_at = time.monotonic()
        self._task = PeriodicTask(self._store_due, FLUSH_INTERVAL)

    def submit(self, event: Event, client: str) -> None:
        """Store the event later, or only count it. `client`: the address by which refusals are limited."""
        is_allowed = (
            len(self._events) < MAX_QUEUED
            and self._by_address.count((event.tenant_id, client))[0] <= MAX_PER_ADDRESS
            and self._total.count(())[0] <= MAX_PER_MINUTE
        )
        if is_allowed:
            self._events.append(event)
        else:
            self._omit(event.tenant_id)

    async def close(self) -> None:
        """Store what is queued, in 2 seconds at most."""
        await self._task.close(CLOSE_TIMEOUT)
        if self._events:
            log.error("events were not stored", extra={"number": len(self._events)})

    async def _store_due(self) -> None:
        now = time.monotonic()
        if self._task.is_closing or now >= self._omitted_at + OMITTED_INTERVAL:
            self._omitted_at = now
            self._queue_omitted()
        await self._flush()

    def _queue_omitted(self) -> None:
        omitted, self._omitted = self._omitted, Counter()
        for tenant_id, number in omitted.items():
            details = {"number": number}
            self._events.append(Event(tenant_id=tenant_id, kind=Event.Kind.OMITTED, details=details))

    async def _flush(self) -> None:
        """Raises nothing. Events stay queued until they are stored, also during an outage of the database."""
        size = BATCH_SIZE
        while self._events:
            batch = list(islice(self._events, size))
            try:
                await run_with_orm(_store, batch, self._task.is_closing)
            except Exception as error:  # noqa: BLE001 - the next events must be stored
                if isinstance(error, Error) and is_unavailable(error):
                    return
                if len(batch) > 1:
                    size = 1  # only one of them may have caused the error
                    continue
                size = BATCH_SIZE
                log.error("events were not stored", extra={"number": 1, "cause": type(error).__qualname__})
                self._omit(batch[0].tenant_id)
            for _ in batch:
                self._events.popleft()

    def _omit(self, tenant_id: str | None) -> None:
        self._omitted[tenant_id] += 1
        omitted_refusals.increment()


def _store(events: Sequence[Event], may_wait: bool) -> None:
    """Store all of them, or none. `may_wait`: for a lock on the table."""
    for event in events:
        event.pk = None  # set if an earlier INSERT has succeeded, but not its COMMIT
    unknown = [event for event in events if event.tenant_id is None and "tenant" in event.details]
    if unknown:
        # Of a tenant that is disabled, or that this process had not read yet.
        names = {event.details["tenant"] for event in unknown}
        existing = set(Tenant.objects.filter(pk__in=names).values_list("pk", flat=True))
        for event in unknown:
            if event.details["tenant"] in existing:
                event.tenant_id = event.details.pop("tenant")
    with transaction.atomic():
        if not may_wait and connection.vendor == "postgresql":
            # Requests need this connection to read the configuration: it must not wait for a lock.
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {Event._meta.db_table} IN ROW EXCLUSIVE MODE NOWAIT")
        Event.unscoped.bulk_create(events)


refusal_queues = PerEventLoop(RefusalQueue)


def get_refusal_queue() -> RefusalQueue | None:
    """Return None in a thread, too."""
    try:
        return refusal_queues.objects.get(asyncio.get_running_loop())
    except RuntimeError:
        return None
