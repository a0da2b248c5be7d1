"""What a tenant offers, as of now; and judging once more when that changes meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ags.api.errors import SERVICE_NOT_AVAILABLE, UNAVAILABLE, ApiError
from ags.sessions.denial import Stale
from providers.contract import Choice, Endpoint, Identity
from tenants.snapshot import snapshot
from tenants.view import ServiceView, TenantView

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


class Judge:
    """Asks the strategy of a service, and not again while service and keys are the same.

    What is judged twice because the tenant has changed may be a password, which an upstream would count.
    """

    def __init__(self) -> None:
        self._asked: Any = None
        self._verdict: Identity | Choice | None = None

    def verdict(
        self, tenant: TenantView, service: ServiceView, parameters: Mapping[str, str]
    ) -> Identity | Choice:
        """Return whom the parameters prove. Raises `Refused` and `Unavailable`."""
        asked = (service.id, service.strategy, service.settings, tenant.keys)
        if self._verdict is None or asked != self._asked:
            self._verdict = service.strategy.verify(parameters, service.settings, tenant.keys)
            self._asked = asked
        return self._verdict


def twice_at_most(attempt: Callable[[], _T]) -> _T:
    """Judge once more, on what the database says now, when the tenant changed in between."""
    try:
        return attempt()
    except Stale as stale:
        snapshot.reread(stale.seen.id, stale.seen, stale.since)
    try:
        return attempt()
    except Stale:
        raise ApiError(UNAVAILABLE, why="configuration_changing") from None
