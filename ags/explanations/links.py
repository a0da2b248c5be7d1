"""Links that explain one request: creating, revoking and opening them."""

from __future__ import annotations

import re
from datetime import timedelta

from django.core import signing
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.urls import reverse

from ags.database.clock import get_database_time
from ags.explanations.explanation import Explanation
from ags.explanations.lookup import explain_event
from ags.explanations.models import ExplanationLink
from ags.sessions.models import Event
from ags.sessions.request_context import RequestContext
from ags.sessions.services.staff_events import record_staff_action
from tenants.models import Tenant

LIFETIME = timedelta(days=7)

_SALT = "ags.explanations.links"

_TOKEN = re.compile(r"[0-9]{1,18}-[0-9]{1,12}\.[A-Za-z0-9_-]{43}")
"""The key of a link and its signature."""


@transaction.atomic
def create_link(explanation: Explanation, username: str) -> ExplanationLink:
    """Raises ValidationError if a link to this explanation would not open."""
    request = explanation.request
    if not explanation.is_linkable or not Tenant.objects.filter(pk=request.tenant, enabled=True).exists():
        raise ValidationError("A link needs a request with checks, of a tenant that is enabled.")
    link: ExplanationLink = ExplanationLink.unscoped.create(
        tenant_id=request.tenant,
        event=request.event_id,
        correlation_id=request.correlation_id,
        created_by=username,
        expires_at=get_database_time() + LIFETIME,
    )
    record_staff_action(link, "add", None, {"event": link.event, "expires_at": link.expires_at.isoformat()})
    return link


@transaction.atomic
def revoke_link(link: ExplanationLink) -> None:
    """Revoke a link, unless it is revoked."""
    rows = ExplanationLink.objects.for_tenant(link.tenant_id).filter(pk=link.pk, revoked_at=None)
    if rows.update(revoked_at=Now()):
        record_staff_action(link, "revoke", {"revoked": False}, {"revoked": True})


def build_path(link: ExplanationLink) -> str:
    return reverse("explanation", args=[_signer().sign(_build_key(link))])


def read_token(token: str) -> str | None:
    """Return the key of a link, or None if the signature is invalid. Does not query the database."""
    if not _TOKEN.fullmatch(token):
        return None
    try:
        return _signer().unsign(token)
    except signing.BadSignature:
        return None


def open_link(key: str, context: RequestContext | None) -> tuple[ExplanationLink, Explanation] | None:
    """Return the explanation of a link and store that it was opened, or return None if it does not open.

    `context`: None to store nothing.
    """
    valid = ExplanationLink.unscoped.filter(revoked_at=None, expires_at__gt=Now(), tenant__enabled=True)
    link = valid.filter(pk=key.partition("-")[0]).first()
    if link is None or _build_key(link) != key:
        return None
    explanation = explain_event(link.event, [link.tenant_id])
    if explanation is None:
        return None
    if context is not None:
        Event.unscoped.create(
            tenant_id=link.tenant_id,
            kind=Event.Kind.EXPLANATION_OPENED,
            correlation_id=context.correlation_id,
            client_address=context.client_address,
            details={"link": link.pk, "explained_correlation_id": link.correlation_id},
        )
    return link, explanation


def _build_key(link: ExplanationLink) -> str:
    """Return the primary key and the time of creation.

    After a backup was restored, other links get primary keys of links that it does not contain.
    """
    return f"{link.pk}-{int(link.created_at.timestamp())}"


def _signer() -> signing.Signer:
    return signing.Signer(salt=_SALT, sep=".")
