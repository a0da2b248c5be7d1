"""Events of the audit trail, and the context of a request that causes them."""

from __future__ import annotations

from typing import Any

from ags.api.access_log import AccessLogEntry
from ags.sessions.models import Event
from tests.support.responses import CORRELATION_ID

ADDRESS = "192.0.2.1"
"""An address of a client, for documentation (RFC 5737)."""


def request_context(correlation_id: str = CORRELATION_ID) -> AccessLogEntry:
    """Return the context of a request, for a call of a service without a request."""
    return AccessLogEntry(correlation_id, "POST", ADDRESS)


def get_events(tenant_id: str = "nagra", **fields: Any) -> list[Event]:
    """Return the events of a tenant that are rows of their own, in their order."""
    return list(Event.objects.for_tenant(tenant_id).filter(**fields).order_by("pk"))
