"""Leases: expiring locks that, unlike advisory locks, work behind a pooler. Times are the database's."""

import os
import socket
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

from django.db import Error, models
from django.db.models.functions import Now

from ags.sessions.models import Lease
from tenants.times import format_utc

LIFETIME = timedelta(minutes=1)
"""How long the lease of a crashed process blocks others."""

RENEWAL_INTERVAL = LIFETIME / 4


class LeaseNotAvailable(Exception):
    """Another process holds the lease. The message names the process."""


@dataclass(frozen=True, slots=True)
class LeaseState:
    """`due_for`: how long the work under the lease has been due; negative if it is not."""

    is_held: bool
    due_for: timedelta
    succeeded_at: datetime | None


def read_lease(name: str) -> LeaseState | None:
    """Return None if no process has ever asked for the lease."""
    row = Lease.objects.filter(name=name).annotate(now=Now()).first()
    if row is None:
        return None
    return LeaseState(row.expires_at > row.now, row.now - row.due_at, row.succeeded_at)


class LeaseHolder:
    """A lease of this process. It expires after `LIFETIME` without a call of `renew`.

    Entering the context raises LeaseNotAvailable if another process holds the lease. `kind`: of process.
    """

    def __init__(self, name: str, kind: str = "process") -> None:
        self._name = name
        self._kind = kind
        self._token = uuid.uuid4()

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._not_available()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def acquire(self, **conditions: Any) -> bool:
        """Return False if another process holds the lease, or its row does not meet the conditions."""
        Lease.objects.bulk_create([Lease(name=self._name)], ignore_conflicts=True)
        self._renewed_at = time.monotonic()
        acquired = Lease.objects.filter(name=self._name, expires_at__lte=Now(), **conditions).update(
            token=self._token,
            holder=f"{self._kind} {os.getpid()} on {socket.gethostname()}"[:128],
            acquired_at=Now(),
            expires_at=Now() + LIFETIME,
        )
        return bool(acquired)

    def acquire_if_due(self, state: LeaseState | None) -> bool:
        """Without a statement, return False if the lease is held or its work is not due, in this state."""
        if state is not None and (state.is_held or state.due_for < timedelta(0)):
            return False
        return self.acquire(due_at__lte=Now())

    def release(self) -> None:
        with suppress(Error):  # if the database is unavailable, the lease expires
            self._own().update(expires_at=Now())

    def renew(self, *, has_succeeded: bool = False) -> None:
        """Renew the lease after `RENEWAL_INTERVAL`. Raises LeaseNotAvailable if another process holds it.

        `has_succeeded`: the work has succeeded so far, and continues.
        """
        now = time.monotonic()
        if now - self._renewed_at < RENEWAL_INTERVAL.total_seconds():
            return
        success = {"succeeded_at": Now(), "due_at": Now()} if has_succeeded else {}
        if not self._own().update(expires_at=Now() + LIFETIME, **success):
            raise self._not_available()
        self._renewed_at = now

    def succeed(self, interval: timedelta) -> None:
        """Store that the work has succeeded, and is due again after the interval."""
        self._own().update(succeeded_at=Now(), due_at=Now() + interval)

    def postpone(self, interval: timedelta) -> None:
        """Store that the work has failed, and is due again after the interval."""
        self._own().update(due_at=Now() + interval)

    def _own(self) -> models.QuerySet[Lease]:
        return Lease.objects.filter(name=self._name, token=self._token)

    def _not_available(self) -> LeaseNotAvailable:
        row = Lease.objects.get(name=self._name)
        return LeaseNotAvailable(f"{row.holder}, since {format_utc(row.acquired_at)}")
