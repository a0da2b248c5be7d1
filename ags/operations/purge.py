"""Deleting what is dead, a little at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from ags.operations.lease import lease
from ags.sessions.models import (
    AccountChoice,
    Device,
    DeviceStatus,
    RevokedAccessToken,
    SecurityEvent,
    SessionToken,
)
from ags.sessions.services.issue import LATEST
from providers.claims import TokenSettings
from providers.registry import strategies
from tenants.services import upstream_health

BATCH = 100
"""Rows that one statement deletes: short enough that nobody waits for it."""

REST = 6.0
"""Times that it rests for as long as a batch took: most of a CPU and of the disk is left to the requests."""

REST_MOST = 2.0
"""Seconds that it rests at most: a batch may have waited for somebody else."""

EVENTS_KEPT = timedelta(days=90)
"""How long a security event is kept after it has last happened: long enough to look into a stolen token."""

CLOCK_MARGIN = timedelta(minutes=1)
"""What is kept beyond its end for a process whose clock is behind the database's: to it, a revoked token may
not have expired yet."""


def purge(batch: int = BATCH) -> Iterator[tuple[str, int]]:
    """Delete what is dead; yield of each batch what it was, and how many. Each kind has at least one batch.

    The kinds take turns, for of one there may be no end. Raises LeaseNotAvailable if another purge is
    running: before anything is deleted, or when this one has been stuck for longer than its lease.
    """
    with lease("purge") as holder:
        dead = expired_querysets()
        left = dict(dead)
        while left:
            for kind, rows in list(left.items()):
                holder.renew()
                (order,) = rows.query.order_by
                began = time.monotonic()
                found = list(rows.values_list("pk", order)[:batch])
                # By primary key, committed at once. That they are dead is asked again, for a failed login may
                # have been repeated meanwhile.
                deleted, _ = dead[kind].filter(pk__in=[pk for pk, _ in found]).delete()
                took = time.monotonic() - began
                yield kind, deleted
                if len(found) < batch:
                    del left[kind]
                    continue
                if connection.vendor == "postgresql":
                    # What is deleted stays in its index until it is vacuumed.
                    left[kind] = dead[kind].filter(**{f"{order}__gte": found[-1][1]})
                time.sleep(min(REST * took, REST_MOST))


def expired_querysets() -> dict[str, QuerySet[Any]]:
    now = timezone.now()  # wrote the rows that are not ours, and judges them
    locked_out = timedelta(hours=settings.AXES_COOLOFF_TIME)
    return {
        "session tokens": SessionToken.unscoped.filter(dead_after__lte=Now()).order_by("dead_after"),
        "choices of an account": AccountChoice.unscoped.filter(expires_at__lte=Now()).order_by("expires_at"),
        "revoked access tokens": RevokedAccessToken.unscoped.filter(
            expires_at__lte=Now() - CLOCK_MARGIN
        ).order_by("expires_at"),
        # To its client, a device that is gone is as unknown as one that is deleted.
        "deleted devices": Device.unscoped.filter(
            status=DeviceStatus.DELETED, fixed_expires_at__lte=Now() - CLOCK_MARGIN
        ).order_by("fixed_expires_at"),
        "security events": SecurityEvent.unscoped.filter(latest_at__lte=Now() - EVENTS_KEPT).order_by(
            "latest_at"
        ),
        # There is no index on the time. The oldest are met first in the order of the primary key.
        "failed logins": AccessAttempt.objects.filter(attempt_time__lt=now - locked_out).order_by("pk"),
        "states of documents": upstream_health.stale_documents().order_by("pk"),
        "sessions of staff": Session.objects.filter(expire_date__lt=now).order_by("expire_date"),
        "guards without end": SessionToken.unscoped.filter(
            dead_after__gte=LATEST, expires_at__lte=Now(), service__strategy__in=_refusing_endless_tokens()
        ).order_by("dead_after"),
    }


def _refusing_endless_tokens() -> list[str]:
    """Return the strategies to which a token that expires in the year 9999 is `lifetime_too_long`.

    An earlier release accepted an `exp` in milliseconds, and guarded its `jti` until then. It is refused now,
    and will be until ten years before that: nothing is left to guard. Another strategy may want a guard
    without end.
    """
    return [slug for slug, strategy in strategies().items() if issubclass(strategy.Settings, TokenSettings)]
