"""Leases: locks that belong to no connection, and so hold behind a pooler. Times are the database's."""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from django.db import Error, models
from django.db.models.functions import Now

from ags.sessions.models import Lease

LIFETIME = timedelta(minutes=1)
"""How long a process that has died keeps others away."""

RENEWAL = LIFETIME / 4


class LeaseHeld(Exception):
    """Another process has the lease. The message names it."""


class HeldLease:
    """A lease of this process, which loses it after `LIFETIME` without a call of `keep`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = uuid.uuid4()

    def acquire(self) -> None:
        """Take the lease if it has expired. Raises LeaseHeld."""
        Lease.objects.bulk_create([Lease(name=self._name)], ignore_conflicts=True)
        self._acquired = time.monotonic()
        acquired = Lease.objects.filter(name=self._name, expires_at__lte=Now()).update(
            token=self._token,
            holder=f"process {os.getpid()} on {socket.gethostname()}"[:128],
            acquired_at=Now(),
            expires_at=Now() + LIFETIME,
        )
        if not acquired:
            raise self._held()

    def keep(self) -> None:
        """Renew the lease if it is time. Raises LeaseHeld if another process has taken it."""
        now = time.monotonic()
        if now - self._acquired < RENEWAL.total_seconds():
            return
        if not self._own().update(expires_at=Now() + LIFETIME):
            raise self._held()
        self._acquired = now

    def release(self) -> None:
        """Let the next process have it at once."""
        self._own().update(expires_at=Now())

    def _own(self) -> models.QuerySet[Lease]:
        return Lease.objects.filter(name=self._name, token=self._token)

    def _held(self) -> LeaseHeld:
        row = Lease.objects.get(name=self._name)
        return LeaseHeld(f"{row.holder}, since {row.acquired_at:%Y-%m-%d %H:%M:%S} UTC")


@contextmanager
def lease(name: str) -> Iterator[HeldLease]:
    """Hold the lease of that name. Raises LeaseHeld."""
    held = HeldLease(name)
    held.acquire()
    try:
        yield held
    finally:
        # Where the database is away, it expires.
        with contextlib.suppress(Error):
            held.release()
