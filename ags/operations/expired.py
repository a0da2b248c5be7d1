"""The rows that a purge deletes."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from typing import Any

from axes.models import AccessAttempt
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now
from django.utils import timezone

from ags.explanations.models import ExplanationLink
from ags.sessions.models import (
    Account,
    AccountChoice,
    AccountStatus,
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

EVENT_RETENTION = timedelta(days=30)
"""How long events of no tenant are kept. Those of a tenant: `Tenant.event_retention`."""

LINK_RETENTION = timedelta(days=30)
"""How long an explanation link is kept after it has expired, so that staff see who created it."""

KEY_USE_RETENTION = timedelta(days=2)
"""How long the counts of a period are kept. The pages show one day."""

SECURITY_EVENT_RETENTION = timedelta(days=90)
"""How long a security event is kept after its latest occurrence, for investigations."""

REVOCATION_RETENTION = timedelta(days=1)
"""How long an account keeps its revocation, which may reject what was issued before it: 24 hours at most."""

CLOCK_MARGIN = timedelta(minutes=1)
"""How much longer some rows are kept: if the clock of a process is behind the database's, a revoked token may
not have expired for it."""


def expired_querysets() -> Iterator[tuple[str, QuerySet[Any]]]:
    """Yield the rows to delete in the order of an indexed column, with their kind, as `purge` prints it."""
    tenants = Tenant.objects.values_list("pk", "event_retention", "unused_retention")
    for tenant_id, retention, unused_retention in tenants:
        before = Now() - timedelta(days=retention)
        yield from _expired_tokens(tenant_id, before)
        events = Event.objects.for_tenant(tenant_id)
        yield "events", events.filter(created_at__lte=before).order_by("created_at")
        if unused_retention:
            # A client gets the same response as for a deleted device. A disabled one must stay disabled.
            unused = Device.objects.for_tenant(tenant_id).filter(
                status=DeviceStatus.ENABLED,
                fixed_expires_at__lte=Now() - timedelta(days=unused_retention) - CLOCK_MARGIN,
            )
            yield "unused devices", unused.order_by("fixed_expires_at")
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


def delete_unused_accounts(account_pks: Collection[Any]) -> int:
    """Delete those of tenants with an `unused_retention` that have no device any more; return their number.

    To be called in the transaction that deletes devices, with the accounts of these. Suspended and cancelled
    accounts stay: another sign-on would create an active one. So do those with a recent revocation.
    """
    accounts = Account.unscoped.filter(
        Q(revoked_before=None) | Q(revoked_before__lte=Now() - REVOCATION_RETENTION),
        tenant__unused_retention__gt=0,
        status=AccountStatus.ACTIVE,
    )
    # A sign-on that registers a device locks its account: it is skipped, or the DELETE sees the device.
    candidates = accounts.filter(pk__in=account_pks)
    locked = list(
        candidates.select_for_update(of=("self",), skip_locked=True).order_by().values_list("pk", flat=True)
    )
    if not locked:
        return 0
    devices = Device.unscoped.filter(account=OuterRef("pk"), tenant=OuterRef("tenant"))
    deleted, _ = Account.unscoped.filter(~Exists(devices), pk__in=locked).delete()
    return deleted


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
