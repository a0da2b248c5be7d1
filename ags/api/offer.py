"""What a tenant offers, as of now; and judging once more when that changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ags.api.errors import SERVICE_NOT_AVAILABLE, UNAVAILABLE, ApiError
from ags.sessions.denial import Stale
from providers.contract import Endpoint
from tenants.snapshot import ServiceView, TenantView, snapshot

_T = TypeVar("_T")


def tenant_of(tenant_id: str) -> TenantView:
    """Return the tenant. Raises ApiError (403)."""
    tenant = snapshot.tenant(tenant_id)
    if tenant is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="tenant_not_available")
    return tenant


def offered(tenant_id: str, service_name: str, endpoint: Endpoint) -> tuple[TenantView, ServiceView]:
    """Return the tenant and its service, if it offers that endpoint. Raises ApiError (403)."""
    tenant = tenant_of(tenant_id)
    service = tenant.services.get(service_name)
    if service is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="service_not_available")
    if endpoint not in service.strategy.endpoints:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="endpoint_not_offered")
    return tenant, service


def twice_at_most(attempt: Callable[[], _T], tenant_id: str) -> _T:
    """Judge once more, on what the database says now, when the tenant changed in between."""
    try:
        return attempt()
    except Stale:
        snapshot.reread(tenant_id)
    try:
        return attempt()
    except Stale:
        raise ApiError(UNAVAILABLE, why="configuration_changing") from None
