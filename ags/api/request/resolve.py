"""The tenant and the service of a request, and a second verification when they have changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, TypeVar

from ags.api.errors import SERVICE_NOT_AVAILABLE, UNAVAILABLE, ApiError
from ags.database import database, run_with_orm
from ags.database.batching import own_copy
from ags.database.django_connections import is_read_only
from ags.database.threads import VERIFICATION, run_in_thread
from ags.sessions.exceptions import StaleSnapshot
from providers.contract import Choice, Endpoint, Identity, Strategy
from tenants.snapshot import snapshot
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

_T = TypeVar("_T")


async def refresh_snapshot() -> None:
    """Have the versions of the tenants read if they are old.

    Raises ApiError (503), and Django's database errors.
    """
    if not database().is_available:  # before a strategy asks an upstream in vain
        raise ApiError(UNAVAILABLE, why="database_unavailable")
    if not snapshot.is_fresh():
        await _share("versions", _refresh_snapshot)


# After a failover, the connection of a thread may lead to the old primary. Where a thread only reads, nothing
# but `is_read_only` finds that out, and closes it.


def _refresh_snapshot() -> None:
    is_read_only()
    snapshot.refresh_if_stale()


def _read_tenant(tenant_id: str) -> TenantSnapshot | None:
    is_read_only()
    return snapshot.get_tenant(tenant_id)


def _reread_tenant(stale: StaleSnapshot) -> None:
    is_read_only()
    snapshot.invalidate(stale.snapshot.id, stale.snapshot, stale.since)


async def get_tenant(tenant_id: str) -> TenantSnapshot | None:
    """Return the tenant, or None when it is unknown or disabled. Raises as `refresh_snapshot`."""
    await refresh_snapshot()
    # From here on, the age of the snapshot does not matter: it may have come of age since.
    try:
        return snapshot.get_cached_tenant(tenant_id)
    except LookupError:
        return await _share(("tenant", tenant_id), _read_tenant, tenant_id)


async def get_tenant_or_403(tenant_id: str) -> TenantSnapshot:
    """Return the tenant. Raises ApiError (403, 503), and Django's database errors."""
    tenant = await get_tenant(tenant_id)
    if tenant is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="tenant_not_available")
    return tenant


async def get_service_or_403(
    tenant_id: str, service_name: str, endpoint: Endpoint
) -> tuple[TenantSnapshot, ServiceSnapshot]:
    """Return the tenant and its service, if that answers the endpoint. Raises as `get_tenant_or_403`."""
    tenant = await get_tenant_or_403(tenant_id)
    service = tenant.services.get(service_name)
    if service is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="service_not_available")
    if endpoint not in service.strategy.endpoints:
        raise ApiError(SERVICE_NOT_AVAILABLE, why="endpoint_not_offered")
    return tenant, service


class VerificationCache:
    """The result of a strategy, valid while the service and the keys are the same.

    Verifying again could count as a second failed login at the upstream.
    """

    def __init__(self) -> None:
        self._verified: Any = None
        self._identity: Identity | Choice | None = None

    async def verify(
        self, tenant: TenantSnapshot, service: ServiceSnapshot, parameters: Mapping[str, str]
    ) -> Identity | Choice:
        """Return the verified identity. Raises `VerificationFailed` and `UpstreamUnavailable`."""
        wanted = (service.id, service.strategy, service.settings, tenant.keys)
        if self._identity is None or wanted != self._verified:
            self._identity = await _verify(service.strategy, parameters, service.settings, tenant.keys)
            self._verified = wanted
        return self._identity


async def _verify(strategy: Strategy, *args: Any) -> Identity | Choice:
    if not strategy.blocking:
        return strategy.verify(*args)
    return await run_in_thread(strategy.verify, *args, pool=VERIFICATION)


async def retry_once_if_stale(operation: Callable[[], Awaitable[_T]]) -> _T:
    """Return what the operation returns; if the tenant has changed, read it again and call it once more.

    Raises what it raises, and ApiError (503) when the tenant has changed again.
    """
    try:
        return await operation()
    except StaleSnapshot as stale:
        changed = ("changed", stale.snapshot.id, stale.since)
        await _share(changed, _reread_tenant, stale)
    try:
        return await operation()
    except StaleSnapshot:
        raise ApiError(UNAVAILABLE, why="configuration_changing") from None


_shared: dict[Hashable, asyncio.Task[Any]] = {}


async def _share(name: Hashable, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function in the thread for this, once for all requests that want the same of it meanwhile."""
    key = (asyncio.get_running_loop(), name)
    task = _shared.get(key)
    if task is None:
        task = _shared[key] = asyncio.create_task(run_with_orm(function, *args))
        task.add_done_callback(lambda _: _shared.pop(key))
    try:
        # Shielded: the request that began it may be cancelled, and the others still want it.
        return await asyncio.shield(task)
    except Exception as error:  # noqa: BLE001
        raise own_copy(error) from error.__cause__
