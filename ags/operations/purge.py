"""Deletion of expired rows in small batches."""

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import connection
from django.db.models import Exists, OuterRef, QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now
from django.utils import timezone

from ags.explanations.models import ExplanationLink
from ags.operations.lease import LeaseHolder
from ags.sessions.models import (
    AccountChoice,
    Device,
    DeviceStatus,
    Event,
    RevokedAccessToken,
    SecurityEvent,
    SessionToken,
)
from ags.sessions.services.issue import MAX_DATETIME
from providers.claims import TokenSettings
from providers.registry import strategies
from tenants.models import KeyUse, Tenant
from tenants.services import upstream_health

BATCH_SIZE = 100
"""Rows that one statement deletes: few enough that no request waits for it."""

PAUSE_FACTOR = 6.0
"""The pause after a batch, as a multiple of its duration. Leaves most of the CPU and the disk to requests."""

EVENT_RETENTION = timedelta(days=30)
"""How long events of no tenant are kept. Those of a tenant: `Tenant.event_retention`."""

MAX_PAUSE = 2.0
"""Seconds: a batch may have taken long only because it waited for a lock."""

LINK_RETENTION = timedelta(days=30)
"""How long an explanation link is kept after it has expired, so that staff see who created it."""

KEY_USE_RETENTION = timedelta(days=2)
"""How long the counts of a period are kept. The pages show one day."""

SECURITY_EVENT_RETENTION = timedelta(days=90)
"""How long a security event is kept after its latest occurrence, for investigations."""

CLOCK_MARGIN = timedelta(minutes=1)
"""How much longer some rows are kept: if the clock of a process is behind the database's, a revoked token may
not have expired for it."""


def purge(batch_size: int = BATCH_SIZE) -> Iterator[tuple[str, int]]:
    """Delete expired rows. After each batch, yield the kind of rows and how many were deleted.

    The kinds take turns, because one may grow as fast as it is purged. Raises LeaseNotAvailable if another
    purge is running: before anything is deleted, or when this one was blocked for longer than its lease.
    """
    with LeaseHolder("purge") as lease:
        expired = list(expired_querysets())
        remaining = {number: queryset for number, (_, queryset) in enumerate(expired)}
        while remaining:
            for number, queryset in list(remaining.items()):
                kind, all_expired = expired[number]
                lease.renew()
                (order,) = queryset.query.order_by
                started_at = time.monotonic()
                rows = list(queryset.values_list("pk", order)[:batch_size])
                # By primary key, committed at once. The condition is repeated, because a failed login may
                # have been updated since the SELECT.
                deleted, _ = all_expired.filter(pk__in=[pk for pk, _ in rows]).delete()
                duration = time.monotonic() - started_at
                yield kind, deleted
                if len(rows) < batch_size:
                    del remaining[number]
                    continue
                if connection.vendor == "postgresql":
                    # Skip the index entries of deleted rows, which stay until VACUUM removes them.
                    remaining[number] = all_expired.filter(**{f"{order}__gte": rows[-1][1]})
                time.sleep(min(PAUSE_FACTOR * duration, MAX_PAUSE))


def expired_querysets() -> Iterator[tuple[str, QuerySet[Any]]]:
    """Yield the rows to delete in the order of an indexed column, with their kind, as `purge` prints it."""
    for tenant_id, retention in Tenant.objects.values_list("pk", "event_retention"):
        before = Now() - timedelta(days=retention)
        yield from _expired_tokens(tenant_id, before)
        events = Event.objects.for_tenant(tenant_id)
        yield "events", events.filter(created_at__lte=before).order_by("created_at")
    events = Event.unscoped.filter(tenant=None, created_at__lte=Now() - EVENT_RETENTION)
    yield "events", events.order_by("created_at")
    now = timezone.now()  # for tables whose times Django writes with the clock of a process
    lockout = timedelta(hours=settings.AXES_COOLOFF_TIME)
    yield from {
        "choices of an account": AccountChoice.unscoped.filter(expires_at__lte=Now()).order_by("expires_at"),
        "revoked access tokens": RevokedAccessToken.unscoped.filter(
            expires_at__lte=Now() - CLOCK_MARGIN
        ).order_by("expires_at"),
        # A client gets the same response for a purged device as for a deleted one.
        "deleted devices": Device.unscoped.filter(
            status=DeviceStatus.DELETED, fixed_expires_at__lte=Now() - CLOCK_MARGIN
        ).order_by("fixed_expires_at"),
        "security events": SecurityEvent.unscoped.filter(
            latest_at__lte=Now() - SECURITY_EVENT_RETENTION
        ).order_by("latest_at"),
        # The time has no index. In the order of the primary key, the oldest come first.
        "failed logins": AccessAttempt.objects.filter(attempt_time__lt=now - lockout).order_by("pk"),
        "states of documents": upstream_health.stale_documents().order_by("pk"),
        "uses of keys": _expired_key_uses().order_by("began_at"),
        "explanation links": ExplanationLink.unscoped.filter(expires_at__lte=Now() - LINK_RETENTION).order_by(
            "expires_at"
        ),
        "sessions of staff": Session.objects.filter(expire_date__lt=now).order_by("expire_date"),
    }.items()


def _expired_key_uses() -> QuerySet[KeyUse]:
    """All but the latest period of each key, which has the time of its last use."""
    newer = KeyUse.unscoped.filter(
        tenant=OuterRef("tenant"), key=OuterRef("key"), began_at__gt=OuterRef("began_at")
    )
    return KeyUse.unscoped.filter(Exists(newer), began_at__lte=Now() - KEY_USE_RETENTION)


def _expired_tokens(tenant_id: str, before: CombinedExpression) -> Iterator[tuple[str, QuerySet[Any]]]:
    tokens = SessionToken.objects.for_tenant(tenant_id).filter(created_at__lte=before).order_by("created_at")
    yield "session tokens", tokens.filter(dead_after__lte=Now())
    # An earlier release accepted an `exp` in milliseconds, and kept its `jti` until the year 9999. These
    # strategies now reject such tokens as `lifetime_too_long` until ten years before they expire, so their
    # `jti` need not be kept. Other strategies may need rows that never expire.
    strategies_with_limit = [
        slug for slug, strategy in strategies().items() if issubclass(strategy.Settings, TokenSettings)
    ]
    without_end = tokens.filter(
        dead_after__gte=MAX_DATETIME, expires_at__lte=Now(), service__strategy__in=strategies_with_limit
    )
    yield "guards without end", without_end
