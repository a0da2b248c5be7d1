"""What the audit trail stores of a refused or failed request."""

from http import HTTPStatus
from typing import Any

from django.http.response import HttpResponseBase

from ags.api.access_log import PROBE_PATHS, AccessLogEntry
from ags.api.client_ip import client_block
from ags.api.errors import ErrorResponse
from ags.sessions.models import Event
from ags.sessions.services.refusals import get_refusal_queue
from tenants.snapshot import snapshot


def submit_refusal(entry: AccessLogEntry, response: HttpResponseBase) -> None:
    """Store the refusal later, unless there are too many of them. Raises nothing."""
    queue = get_refusal_queue()
    if queue is None or entry.route in PROBE_PATHS:
        return
    tenant_id = entry.tenant if entry.tenant and snapshot.has_tenant(entry.tenant) else None
    is_failure = response.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    event = Event(
        tenant_id=tenant_id,
        kind=Event.Kind.FAILED if is_failure else Event.Kind.REFUSED,
        service=_clean(entry.service, 128),
        kid=_clean(entry.kid, 128),
        correlation_id=entry.correlation_id,
        client_address=entry.client_address,
        account_id=entry.account_id or "",
        client_id=_clean(entry.client_id, 128),
        reason=_clean(entry.reason, 64),
        details=_build_details(entry, response, tenant_id),
    )
    queue.submit(event, client_block(entry.client_address) if entry.client_address else "")


def _build_details(
    entry: AccessLogEntry, response: HttpResponseBase, tenant_id: str | None
) -> dict[str, Any]:
    details: dict[str, Any] = {
        "method": entry.method,
        "route": entry.route,
        "status": response.status_code,
        "facts": entry.facts,
    }
    if isinstance(response, ErrorResponse):
        details |= {"code": response.error.code, "message": response.message}
    if tenant_id is None and entry.tenant:
        details["tenant"] = _clean(entry.tenant, 64)
    return details


def _clean(text: str | None, max_length: int) -> str:
    """Return a value that a client may have chosen, if it can be stored and displayed."""
    return text[:max_length] if text and text.isprintable() else ""
