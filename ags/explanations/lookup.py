"""Finding what the audit trail has about a correlation ID."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from ags.explanations.current_state import add_current_state, describe_end
from ags.explanations.explanation import Explanation, Request, explain_grant, explain_refusal
from ags.explanations.reasons import REASONS
from ags.explanations.steps import GET_SESSION_TOKEN, REDEEM, SIGN_ON
from ags.sessions.annotations import with_device_state, with_session_token_state
from ags.sessions.models import Device, Event, SessionToken
from providers.contract import Strategy
from providers.registry import strategies
from tenants.models import Service, Tenant
from tenants.times import format_utc

MAX_EXPLANATIONS = 20

OMITTED_WITHIN = timedelta(days=1)

_NOT_EXPLAINED = (Event.Kind.OMITTED, Event.Kind.EXPLANATION_OPENED)

_EVENT_ID = re.compile(
    r"(?a:event:(?P<event>\d{1,18})|session_token:(?P<token>\d{1,18}):(?P<part>issued|redeemed))"
)

_REFUSED = (Event.Kind.REFUSED, Event.Kind.FAILED)


def explain_request(correlation_id: str, tenants: Collection[str] | None) -> list[Explanation]:
    """Return the explanations of all requests with this correlation ID, the newest first.

    `tenants`: the IDs of those that the reader may see; None for all, and for requests of no tenant.
    """
    # AGS creates IDs in lower case, and callers may display them in upper case.
    correlation_ids = {correlation_id, correlation_id.lower()}
    rows = _visible_events(tenants).filter(correlation_id__in=correlation_ids)
    events = rows.exclude(kind__in=_NOT_EXPLAINED).order_by("-created_at", "-pk")[:MAX_EXPLANATIONS]
    found = [*map(_explain_event, events), *_explain_session_tokens(correlation_ids, _ids(tenants))]
    return sorted(found, key=lambda each: each.request.at, reverse=True)[:MAX_EXPLANATIONS]


def explain_event(event_id: str, tenants: Collection[str] | None) -> Explanation | None:
    """Return the explanation of one request of a tenant, without what has happened since.

    `event_id`: that of `Request`. `tenants`: as for `explain_request`.
    """
    match = _EVENT_ID.fullmatch(event_id)
    if match is None:
        return None
    if match["event"]:
        rows = _visible_events(tenants).filter(pk=match["event"], tenant__isnull=False)
        event = rows.exclude(kind__in=_NOT_EXPLAINED).first()
        return event and replace(_explain_event(event), since=())
    token = _session_tokens(_ids(tenants)).filter(pk=match["token"]).first()
    if token is None:
        return None
    is_redemption = match["part"] == "redeemed"
    if not is_redemption and not _is_direct(token):
        return replace(_explain_issue(token), since=())
    if is_redemption and token.redeemed_at is not None:
        return replace(_explain_redemption(token), since=())
    return None


def explain_absence(tenants: Collection[str] | None) -> list[str]:
    """Return sentences about why nothing may be found."""
    events = _visible_events(tenants).filter(kind=Event.Kind.OMITTED, created_at__gte=Now() - OMITTED_WITHIN)
    omitted = sum(details.get("number", 0) for details in events.values_list("details", flat=True))
    return [
        "It was refused, and only counted, because there were too many refusals. In 24 hours, until a minute "
        f"ago, {omitted:,} were only counted.",
        "It is older than the event retention of its tenant, so it was purged; or it is newer than a few "
        "seconds, and not stored yet.",
        "It succeeded, and is not stored: service discovery, key sets, refreshes and introspection, and a "
        "sign-on that returned several accounts.",
        "It is of another tenant, or of another installation of AGS.",
        "It is not the ID of the response: AGS creates one if x-correlation-id is missing or invalid. Use "
        "correlationId of the body, or x-correlation-id of the response.",
    ]


def _ids(tenants: Collection[str] | None) -> list[str]:
    """Return the IDs for which an index is used."""
    return list(Tenant.objects.values_list("pk", flat=True) if tenants is None else tenants)


def _visible_events(tenants: Collection[str] | None) -> Any:
    of_tenants = Q(tenant__in=_ids(tenants))
    if tenants is None:
        return Event.unscoped.filter(of_tenants | Q(tenant=None))
    # The tenant in the headers is not that of the event if it is disabled.
    return Event.unscoped.filter(of_tenants | Q(tenant=None, details__tenant__in=list(tenants)))


def find_strategy(tenant_id: str, service: str) -> Strategy | None:
    slug = Service.objects.for_tenant(tenant_id).filter(name=service).values_list("strategy", flat=True)
    return strategies().get(slug.first() or "")


def _explain_event(event: Event) -> Explanation:
    details = event.details
    status, code = details.get("status"), details.get("code")
    message = f"{status}, code {code}: {details.get('message')}" if code else str(status or "")
    request = Request(
        event.correlation_id,
        event.created_at,
        event.tenant_id or details.get("tenant", ""),
        event.service,
        details.get("route") or "",
        details.get("method") or "",
        event.kid,
        event.client_address or "",
        message,
        f"event:{event.pk}" if event.tenant_id else "",
    )
    if event.kind not in _REFUSED:
        reason = f" ({event.reason})" if event.reason else ""
        return Explanation(request, f"{event.get_kind_display()}{reason}.")
    strategy = find_strategy(request.tenant, event.service)
    is_failure = event.kind == Event.Kind.FAILED
    explanation = explain_refusal(
        request, event.reason, details.get("facts", {}), strategy=strategy, is_failure=is_failure
    )
    return add_current_state(explanation, event)


def _explain_session_tokens(correlation_ids: Collection[str], tenants: list[str]) -> Iterator[Explanation]:
    newest = _session_tokens(tenants).order_by("-created_at", "-pk")
    for row in newest.filter(correlation_id__in=correlation_ids)[:MAX_EXPLANATIONS]:
        yield _explain_redemption(row) if _is_direct(row) else _explain_issue(row)
    for row in newest.filter(redemption_correlation_id__in=correlation_ids)[:MAX_EXPLANATIONS]:
        if not _is_direct(row):
            yield _explain_redemption(row)


def _session_tokens(tenants: list[str]) -> Any:
    rows = SessionToken.unscoped.filter(tenant__in=tenants)
    return with_session_token_state(rows).select_related("service")


def _is_direct(row: Any) -> bool:
    """Return whether the row is the proof of a direct sign-on."""
    return bool(row.redeemed_at == row.created_at)


_TOKEN_STATES: Mapping[str, Callable[[Any], str]] = {
    "live": lambda row: f"It has not been redeemed, and is valid until {format_utc(row.expires_at)}.",
    "expired": lambda row: f"It expired at {format_utc(row.expires_at)}, and was not redeemed.",
    "redeemed": lambda row: (
        f"It was redeemed at {format_utc(row.redeemed_at)}, correlation ID {row.redemption_correlation_id}."
    ),
    "revoked": lambda row: "It cannot be redeemed: it was revoked.",
}


def _explain_issue(row: Any) -> Explanation:
    describe = _TOKEN_STATES.get(row.state)
    since = describe(row) if describe else f"It cannot be redeemed: {_reason(row.state)}"
    return explain_grant(
        Request(
            row.correlation_id,
            row.created_at,
            row.tenant_id,
            row.service.name,
            GET_SESSION_TOKEN,
            "POST",
            row.kid or "",
            row.client_address or "",
            "200",
            f"session_token:{row.pk}:issued",
        ),
        "AGS issued a session token.",
        strategy=strategies().get(row.service.strategy),
        since=[since],
    )


def _explain_redemption(row: Any) -> Explanation:
    request = Request(
        row.redemption_correlation_id,
        row.redeemed_at,
        row.tenant_id,
        row.service.name,
        SIGN_ON if _is_direct(row) else REDEEM,
        "POST",
        row.kid or "",
        row.redemption_address or "",
        "201",
        f"session_token:{row.pk}:redeemed",
    )
    strategy = strategies().get(row.service.strategy)
    return explain_grant(request, "The device signed on.", strategy=strategy, since=[_describe_device(row)])


def _describe_device(row: Any) -> str:
    devices = with_device_state(Device.objects.for_tenant(row.tenant_id).filter(client_id=row.client_id))
    device = devices.first()
    if device is None:
        return "The device has been deleted since."
    if device.correlation_id != row.redemption_correlation_id:
        return f"The device signed on again at {format_utc(device.signed_on_at)}."
    if end := describe_end(device):
        return end
    until = format_utc(device.refresh_expires_at)
    if device.state in {"live", "expired"}:
        return f"The device {'is' if device.state == 'live' else 'was'} signed on until {until}."
    return f"The device cannot use its tokens: {_reason(device.state)}"


def _reason(code: str) -> str:
    refused = REASONS[code].refused
    return refused[0].lower() + refused[1:]
