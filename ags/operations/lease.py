"""Leases: expiring locks that, unlike advisory locks, work behind a pooler. Times are the database's."""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from django.db import Error, models
from django.db.models.functions import Now

from ags.sessions.models import Lease
from tenants.times import format_utc

LIFETIME = timedelta(minutes=1)
"""How long the lease of a crashed process blocks others."""

RENEWAL_INTERVAL = LIFETIME / 4


class LeaseNotAvailable(Exception):
    """Another process holds the lease. The message names the process."""


class LeaseHolder:
    """A lease of this process. It expires after `LIFETIME` without a call of `renew`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = uuid.uuid4()

    def acquire(self) -> None:
        """Raises LeaseNotAvailable."""
        Lease.objects.bulk_create([Lease(name=self._name)], ignore_conflicts=True)
        self._renewed_at = time.monotonic()
        acquired = Lease.objects.filter(name=self._name, expires_at__lte=Now()).update(
            token=self._token,
            holder=f"process {os.getpid()} on {socket.gethostname()}"[:128],
            acquired_at=Now(),
            expires_at=Now() + LIFETIME,
        )
        if not acquired:
            raise self._not_available()

    def renew(self) -> None:
        """Renew the lease after `RENEWAL_INTERVAL`. Raises LeaseNotAvailable if another process holds it."""
        now = time.monotonic()
        if now - self._renewed_at < RENEWAL_INTERVAL.total_seconds():
            return
        if not self._own().update(expires_at=Now() + LIFETIME):
            raise self._not_available()
        self._renewed_at = now

    def release(self) -> None:
        self._own().update(expires_at=Now())

    def _own(self) -> models.QuerySet[Lease]:
        return Lease.objects.filter(name=self._name, token=self._token)

    def _not_available(self) -> LeaseNotAvailable:
        row = Lease.objects.get(name=self._name)
        return LeaseNotAvailable(f"{row.holder}, since {format_utc(row.acquired_at)}")


@contextmanager
def lease(name: str) -> Iterator[LeaseHolder]:
    """Raises LeaseNotAvailable."""
    holder = LeaseHolder(name)
    holder.acquire()
    try:
        yield holder
    finally:
        # If the database is unavailable, the lease expires.
        with suppress(Error):
            holder.release()
