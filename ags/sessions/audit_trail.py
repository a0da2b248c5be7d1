"""Reading the audit trail: the events of all models in which they are stored."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any

from django.db import connection
from django.db.models import F, Q, QuerySet

from ags.sessions.models import Device, Event, SecurityEvent, SessionToken

SESSION_TOKEN_ISSUED = "session_token_issued"  # noqa: S105 - a kind

KINDS: dict[str, str] = {
    SESSION_TOKEN_ISSUED: "Session token issued",
    Event.Kind.SIGNED_ON.value: "Signed on",
    **dict(SecurityEvent.Kind.choices),
    **{value: label for value, label in Event.Kind.choices if value != Event.Kind.SIGNED_ON},
}
"""All kinds of events, with their labels."""

PAGE_SIZE = 1000
"""Rows that `read` has in memory, of each source."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """`id` is unique: the kind of row and its primary key. `tenant_id` is None for events of no tenant.

    `account_id` and `client_id` are those of the subscriber and the device. Values that are not known are
    empty.
    """

    id: str
    time: datetime
    kind: str
    tenant_id: str | None
    correlation_id: str
    client_address: str | None = None
    service: str = ""
    kid: str = ""
    account_id: str = field(default="", repr=False)
    client_id: str = ""
    actor: str = ""
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """What events must have. Empty values match all. `since` is included, `until` is not."""

    account_id: str = field(default="", repr=False)
    client_id: str = ""
    correlation_id: str = ""
    kid: str = ""
    kind: str = ""
    since: datetime | None = None
    until: datetime | None = None


def search(tenant_ids: Collection[str | None], criteria: Criteria, limit: int) -> list[AuditEvent]:
    """Return the newest events of these tenants, newest first. None: the events of no tenant."""
    found: list[AuditEvent] = []
    for source in _SOURCES:
        rows = source.queryset(tenant_ids, criteria).order_by(f"-{source.time}", "-pk")
        found += map(source.build, rows[:limit])
    return sorted(found, key=attrgetter("time", "id"), reverse=True)[:limit]


def read(tenant_id: str | None, criteria: Criteria) -> Iterator[AuditEvent]:
    """Yield all events of a tenant, oldest first."""
    events = [
        map(source.build, _iterate(source.queryset([tenant_id], criteria), source.time))
        for source in _SOURCES
    ]
    return heapq.merge(*events, key=attrgetter("time"))


def find_oldest_time(tenant_id: str | None, criteria: Criteria) -> datetime | None:
    """Return the time of the oldest event of a tenant."""
    times: list[datetime] = []
    for source in _SOURCES:
        rows = source.queryset([tenant_id], criteria).order_by(source.time)
        times += rows.values_list(source.time, flat=True)[:1]
    return min(times, default=None)


def _iterate(rows: QuerySet[Any], time: str) -> Iterator[Any]:
    """Yield the rows, oldest first.

    In pages on PostgreSQL: a pooler has no server-side cursors, and other clients load all rows at once.
    """
    rows = rows.order_by(time, "pk")
    if connection.vendor != "postgresql":
        yield from rows.iterator(PAGE_SIZE)
        return
    page = list(rows[:PAGE_SIZE])
    yield from page
    while len(page) == PAGE_SIZE:
        latest = getattr(page[-1], time)
        later = Q(**{f"{time}__gt": latest}) | Q(pk__gt=page[-1].pk)
        page = list(rows.filter(later, **{f"{time}__gte": latest})[:PAGE_SIZE])
        yield from page


@dataclass(frozen=True, slots=True)
class _Source:
    """A model, or a part of its rows.

    `rows` joins no other table: without statistics of that table, PostgreSQL expects few rows, and reads and
    sorts all of them instead of using an index.

    `columns`: those of the criteria of the same names. An event of another kind than `kinds`, or with another
    criterion, is not in this source. `finds_device_by_account`: the rows have no index by device.
    """

    rows: Callable[[], QuerySet[Any]]
    time: str
    kinds: Collection[str]
    columns: dict[str, str]
    build: Callable[[Any], AuditEvent]
    finds_device_by_account: bool = False

    def queryset(self, tenant_ids: Collection[str | None], criteria: Criteria) -> QuerySet[Any]:
        rows = self.rows().filter(_has_tenant(tenant_ids))
        for name in ("account_id", "client_id", "correlation_id", "kid"):
            if value := getattr(criteria, name):
                rows = rows.filter(**{self.columns[name]: value}) if name in self.columns else rows.none()
        if criteria.client_id and self.finds_device_by_account:
            device = Device.unscoped.filter(_has_tenant(tenant_ids), client_id=criteria.client_id)
            rows = rows.filter(account_id__in=device.values("account__account_id"))
        if criteria.kind:
            rows = rows.filter(kind=criteria.kind) if "kind" in self.columns else rows
            rows = rows if criteria.kind in self.kinds else rows.none()
        if criteria.since is not None:
            rows = rows.filter(**{f"{self.time}__gte": criteria.since})
        if criteria.until is not None:
            rows = rows.filter(**{f"{self.time}__lt": criteria.until})
        return rows


def _has_tenant(tenant_ids: Collection[str | None]) -> Q:
    known = [tenant_id for tenant_id in tenant_ids if tenant_id is not None]
    condition = Q(tenant=known[0]) if len(known) == 1 else Q(tenant__in=known)
    return condition | Q(tenant__isnull=True) if None in tenant_ids else condition


def _issued(token: SessionToken) -> AuditEvent:
    return AuditEvent(
        id=f"session_token:{token.pk}:issued",
        time=token.created_at,
        kind=SESSION_TOKEN_ISSUED,
        tenant_id=token.tenant_id,
        correlation_id=token.correlation_id,
        client_address=token.client_address,
        service=token.service.name,
        kid=token.kid or "",
        account_id=token.account_id,
        details={"session_token": token.pk, "expires_at": token.expires_at.isoformat()},
    )


def _signed_on(token: Any) -> AuditEvent:
    return AuditEvent(
        id=f"session_token:{token.pk}:redeemed",
        time=token.redeemed_at,
        kind=Event.Kind.SIGNED_ON.value,
        tenant_id=token.tenant_id,
        correlation_id=token.redemption_correlation_id or "",
        client_address=token.redemption_address,
        service=token.service.name,
        kid=token.kid or "",
        account_id=token.account_id,
        client_id=token.client_id or "",
        details={"session_token": token.pk},
    )


def _security_event(event: SecurityEvent) -> AuditEvent:
    return AuditEvent(
        # With the number, because a later repetition is another event.
        id=f"security_event:{event.pk}:{event.times}",
        time=event.latest_at,
        kind=event.kind,
        tenant_id=event.tenant_id,
        correlation_id=event.correlation_id,
        account_id=event.account_id,
        details={"subject": event.subject, "times": event.times, "first_at": event.first_at.isoformat()},
    )


def _event(event: Event) -> AuditEvent:
    return AuditEvent(
        id=f"event:{event.pk}",
        time=event.created_at,
        kind=event.kind,
        tenant_id=event.tenant_id,
        correlation_id=event.correlation_id,
        client_address=event.client_address,
        service=event.service,
        kid=event.kid,
        account_id=event.account_id,
        client_id=event.client_id,
        actor=event.actor,
        reason=event.reason,
        details=event.details,
    )


def _columns(*names: str, **others: str) -> dict[str, str]:
    return {name: name for name in names} | others


_SOURCES = (
    _Source(
        # The proof of a direct sign-on is a row, too, that expires at once.
        lambda: SessionToken.unscoped.filter(expires_at__gt=F("created_at")).prefetch_related("service"),
        "created_at",
        {SESSION_TOKEN_ISSUED},
        _columns("account_id", "correlation_id", "kid"),
        _issued,
    ),
    _Source(
        lambda: SessionToken.unscoped.filter(redeemed_at__isnull=False).prefetch_related("service"),
        "redeemed_at",
        {Event.Kind.SIGNED_ON.value},
        _columns("account_id", "client_id", "kid", correlation_id="redemption_correlation_id"),
        _signed_on,
        finds_device_by_account=True,
    ),
    _Source(
        SecurityEvent.unscoped.all,
        "latest_at",
        SecurityEvent.Kind.values,
        _columns("account_id", "correlation_id", "kind"),
        _security_event,
    ),
    _Source(
        Event.unscoped.all,
        "created_at",
        Event.Kind.values,
        _columns("account_id", "client_id", "correlation_id", "kid", "kind"),
        _event,
    ),
)
