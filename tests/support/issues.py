"""Issued session tokens."""

from __future__ import annotations

from django.test.utils import CaptureQueriesContext

from ags.database.django_connections import READ_ONLY_QUERY
from ags.sessions.models import SessionToken


def get_session_tokens(tenant_id: str = "nagra") -> list[SessionToken]:
    return list(SessionToken.objects.for_tenant(tenant_id).order_by("pk"))


def get_verbs(captured: CaptureQueriesContext) -> list[str]:
    """Return the verbs of the statements, without the check for a read-only PostgreSQL."""
    return [query["sql"].split()[0] for query in captured if query["sql"] != READ_ONLY_QUERY]
