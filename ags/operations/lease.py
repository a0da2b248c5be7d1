"""Leases: expiring locks that, unlike advisory locks, work behind a pooler. Times are the database's."""

import os
import socket
import time
import uuid
from contextlib import suppress
from datetime import timedelta
from typing import Self

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
    """A lease of this process. It expires after `LIFETIME` without a call of `renew`.

    Entering the context raises LeaseNotAvailable if another process holds the lease.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._token = uuid.uuid4()

    def __enter__(self) -> Self:
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
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(Error):  # if the database is unavailable, the lease expires
            self._own().update(expires_at=Now())

    def renew(self) -> None:
        """Renew the lease after `RENEWAL_INTERVAL`. Raises LeaseNotAvailable if another process holds it."""
        now = time.monotonic()
        if now - self._renewed_at < RENEWAL_INTERVAL.total_seconds():
            return
        if not self._own().update(expires_at=Now() + LIFETIME):
            raise self._not_available()
        self._renewed_at = now

    def _own(self) -> models.QuerySet[Lease]:
        return Lease.objects.filter(name=self._name, token=self._token)

    def _not_available(self) -> LeaseNotAvailable:
        row = Lease.objects.get(name=self._name)
        return LeaseNotAvailable(f"{row.holder}, since {format_utc(row.acquired_at)}")
