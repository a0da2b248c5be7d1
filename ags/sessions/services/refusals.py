"""Storing refused requests in the audit trail. No response waits for it, and a flood is limited."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque

from django.db.utils import InterfaceError, OperationalError

from ags.database import run_with_orm
from ags.database.threads import QueueTimeout
from ags.limits.memory import LocalCounters
from ags.server.shared_counter import SharedCounter
from ags.sessions.models import Event

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
        self._is_closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())

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
        self._is_closing.set()
        await asyncio.wait([self._task], timeout=CLOSE_TIMEOUT)
        self._task.cancel()

    async def _run(self) -> None:
        omitted_at = time.monotonic()
        while not self._is_closing.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_INTERVAL):
                    await self._is_closing.wait()
            if self._is_closing.is_set() or time.monotonic() >= omitted_at + OMITTED_INTERVAL:
                omitted_at = time.monotonic()
                self._queue_omitted()
            await self._flush()

    def _queue_omitted(self) -> None:
        omitted, self._omitted = self._omitted, Counter()
        for tenant_id, number in omitted.items():
            details = {"number": number}
            self._events.append(Event(tenant_id=tenant_id, kind=Event.Kind.OMITTED, details=details))

    async def _flush(self) -> None:
        """Raises nothing. Events stay queued while the database is unavailable."""
        while self._events:
            batch = [self._events.popleft() for _ in range(min(len(self._events), BATCH_SIZE))]
            try:
                await run_with_orm(Event.unscoped.bulk_create, batch)
            except (OperationalError, InterfaceError, QueueTimeout):
                self._events.extendleft(reversed(batch))
                return
            except Exception as error:  # noqa: BLE001 - the next events must be stored
                log.error("events were not stored", extra={"cause": type(error).__qualname__})
                for event in batch:
                    self._omit(event.tenant_id)

    def _omit(self, tenant_id: str | None) -> None:
        self._omitted[tenant_id] += 1
        omitted_refusals.increment()


_open: dict[asyncio.AbstractEventLoop, RefusalQueue] = {}
"""By event loop. `runserver` and Django's test clients run each request in a new one, without a queue."""


def open_refusal_queue() -> None:
    _open[asyncio.get_running_loop()] = RefusalQueue()


async def close_refusal_queue() -> None:
    queue = _open.pop(asyncio.get_running_loop(), None)
    if queue is not None:
        await queue.close()


def get_refusal_queue() -> RefusalQueue | None:
    """Return None in a thread, too."""
    try:
        return _open.get(asyncio.get_running_loop()) if _open else None
    except RuntimeError:
        return None
