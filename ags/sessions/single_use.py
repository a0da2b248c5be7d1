"""Why what is good once, a session token or a choice of accounts, could not be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ags.sessions import events
from ags.sessions.denial import Denial, Denied, Fault, Stale
from ags.sessions.models import SecurityEvent
from tenants.view import ServiceView, TenantView


async def explain_rejection(
    tenant: TenantView,
    service: ServiceView,
    row: Sequence[Any] | None,
    reuse: SecurityEvent.Kind,
    correlation_id: str,
) -> Exception:
    """Return the precise reason, by what the database says of it now. A second use is a security event.

    `row`: number, account ID, whether it is used, revoked, expired, its service, and the fault of what it
    rests on; None where there is none.
    """
    if row is None:
        return Denied(Denial.TOKEN_UNKNOWN)
    number, account_id, is_used, is_revoked, is_expired, service_id, fault = row
    if is_used:
        await events.record(tenant.id, reuse, str(number), account_id, correlation_id)
        return Denied(Denial.TOKEN_SPENT)
    if is_revoked:
        return Denied(Fault.REVOKED)
    if is_expired:
        return Denied(Denial.TOKEN_EXPIRED)
    if service_id != service.id:
        return Denied(Denial.TOKEN_UNKNOWN)
    if fault is not None:
        return Denied(Fault(fault))
    return Stale(tenant)
