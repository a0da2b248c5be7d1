"""What the question before an act says about session tokens and sign-ons that stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import OperationalError, connection, transaction
from django.db.models import Model, QuerySet
from django.db.models.functions import Now
from django.dispatch import receiver

from ags.sessions.admin.annotations import with_device_state, with_session_token_state
from ags.sessions.models import Account, Device, SessionToken
from tenants.admin.base import bounded_count, collect_revocation_impact, in_words
from tenants.models import Key, Service, Tenant

COUNTING_LIMIT = 300
"""Milliseconds."""


@receiver(collect_revocation_impact)
def issued_by(sender: type[Model], row: Any, revokes_issued: bool, **kwargs: Any) -> list[str]:
    """Say how many live session tokens a row gave rise to, and sign-ons where these end, too."""
    if not revokes_issued and not isinstance(row, Key):
        return []
    return list(_counts(row, with_sign_ons=revokes_issued))


def _counts(row: Any, *, with_sign_ons: bool) -> Iterator[str]:
    tokens, devices = _given_rise_to(row)
    # `dead_after` is never before `expires_at`, and has an index.
    live = with_session_token_state(tokens.filter(dead_after__gt=Now())).filter(state="live")
    yield f"Live session tokens that it gave rise to: {_counted(live)}."
    if with_sign_ons:
        live = with_device_state(devices).filter(state="live")
        yield f"Live sign-ons that it gave rise to: {_counted(live)}."


def _given_rise_to(row: Any) -> tuple[QuerySet[SessionToken], QuerySet[Device]]:
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


def _counted(rows: QuerySet[Any]) -> str:
    """Count, but never keep somebody waiting who is about to revoke something."""
    if connection.vendor != "postgresql":
        return in_words(bounded_count(rows))
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            # Compiling the statement can take longer than the limit, which includes it.
            cursor.execute(f"SET LOCAL jit = off; SET LOCAL statement_timeout = {COUNTING_LIMIT}")
            counted = in_words(bounded_count(rows))
            # What else the transaction does, where there was one already, may take longer.
            cursor.execute("SET LOCAL jit TO DEFAULT; SET LOCAL statement_timeout TO DEFAULT")
            return counted
    except OperationalError:
        return f"too many to count in {COUNTING_LIMIT} ms"
