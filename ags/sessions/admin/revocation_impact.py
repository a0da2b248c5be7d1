"""The number of session tokens and sign-ons that a revocation ends, for its confirmation page."""

from datetime import timedelta
from typing import Any

from django.db import OperationalError
from django.db.models import Model, QuerySet
from django.db.models.functions import Now
from django.dispatch import receiver

from ags.sessions.admin.timeouts import StatementTimeout, statement_timeout
from ags.sessions.annotations import with_device_state, with_session_token_state
from ags.sessions.models import Account, Device, SessionToken
from providers.contract.settings import MAX_SESSION_TOKEN_TTL
from tenants.admin.base import bounded_count, format_count
from tenants.admin.transitions import collect_revocation_impact
from tenants.models import Key, Service, Tenant

COUNT_TIMEOUT = 300
"""Milliseconds for each count."""


@receiver(collect_revocation_impact)
def describe_impact(sender: type[Model], row: Any, revokes_issued: bool, **kwargs: Any) -> list[str]:
    """Describe the live session tokens that end, and with `revokes_issued` the live sign-ons."""
    if not revokes_issued and not isinstance(row, Key):
        return []
    tokens, devices = _get_issued(row)
    # Older ones have expired; the time has an index.
    newest = tokens.filter(created_at__gt=Now() - timedelta(seconds=MAX_SESSION_TOKEN_TTL))
    live_tokens = with_session_token_state(newest).filter(state="live")
    impact = [f"Live session tokens: {_count_with_timeout(live_tokens)}."]
    if revokes_issued:
        live_sign_ons = with_device_state(devices).filter(state="live")
        impact.append(f"Live sign-ons: {_count_with_timeout(live_sign_ons)}.")
    return impact


def _get_issued(row: Any) -> tuple[QuerySet[SessionToken], QuerySet[Device]]:
    tenant_id = row.pk if isinstance(row, Tenant) else row.tenant_id
    tokens, devices = SessionToken.objects.for_tenant(tenant_id), Device.objects.for_tenant(tenant_id)
    match row:
        case Service():
            return tokens.filter(service=row), devices.filter(service=row)
        case Key():
            return tokens.filter(key=row), devices.filter(key=row)
        case Account():
            return tokens.filter(account_id=row.account_id), devices.filter(account=row)
    return tokens, devices


def _count_with_timeout(rows: QuerySet[Any]) -> str:
    # Counting must not delay a revocation.
    try:
        with statement_timeout(COUNT_TIMEOUT):
            return format_count(bounded_count(rows))
    except (StatementTimeout, OperationalError):
        return f"too many to count in {COUNT_TIMEOUT} ms"
