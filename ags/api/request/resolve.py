"""Lookup of the tenant and the service of a request; retries when the snapshot of a tenant was stale."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import copy_context
from typing import Any, TypeVar

from ags.api.errors import SERVICE_NOT_AVAILABLE, UNAVAILABLE, ApiError
from ags.api.password_limit import PasswordAttempt, begin_attempt, is_password_failure
from ags.database import get_database, run_with_orm
from ags.database.batching import copy_exception
from ags.database.django_connections import close_if_read_only
from ags.database.tasks import complete
from ags.database.threads import VERIFICATION, QueueTimeout, run_in_thread
from ags.sessions.exceptions import StaleSnapshot
from ags.sessions.services.devices import KnownDevice, NewDevice
from providers.contract import Choice, Endpoint, Identity, Strategy, UpstreamUnavailable
from tenants.snapshot import snapshot
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

_T = TypeVar("_T")


async def refresh_snapshot() -> None:
    """Raises ApiError (503) and Django's database errors, as do the next three functions."""
    if not get_database().is_available:  # fail before a strategy calls an upstream
        raise ApiError(UNAVAILABLE, log_reason="database_unavailable")
    if not snapshot.is_fresh():
        await _run_shared("versions", snapshot.refresh_if_stale)


async def get_tenant(tenant_id: str) -> TenantSnapshot | None:
    """Return None if the tenant is unknown or disabled."""
    await refresh_snapshot()
    # `get_cached_tenant` does not check the age again: the snapshot may have expired since.
    try:
        return snapshot.get_cached_tenant(tenant_id)
    except LookupError:
        return await _run_shared(("tenant", tenant_id), snapshot.get_tenant, tenant_id)


async def get_tenant_or_403(tenant_id: str) -> TenantSnapshot:
    tenant = await get_tenant(tenant_id)
    if tenant is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, log_reason="tenant_not_available")
    return tenant


async def get_service_or_403(
    tenant_id: str, service_name: str, endpoint: Endpoint
) -> tuple[TenantSnapshot, ServiceSnapshot]:
    tenant = await get_tenant_or_403(tenant_id)
    service = tenant.services.get(service_name)
    if service is None:
        raise ApiError(SERVICE_NOT_AVAILABLE, log_reason="service_not_available")
    if endpoint not in service.strategy.endpoints:
        raise ApiError(SERVICE_NOT_AVAILABLE, log_reason="endpoint_not_offered")
    return tenant, service


class VerificationCache:
    """Verifying again could count as a second failed login at the upstream, so the result is cached."""

    device: NewDevice | KnownDevice | None = None
    """The device that signs on, if the request names one."""

    _key: Any = None
    _identity: Identity | Choice | None = None
    _attempt: PasswordAttempt | None = None

    async def verify(
        self, tenant: TenantSnapshot, service: ServiceSnapshot, parameters: Mapping[str, str]
    ) -> Identity | Choice:
        """Raises `VerificationFailed` and `UpstreamUnavailable`."""
        strategy = service.strategy
        key = (service.id, strategy, service.settings, service.keys)
        if self._identity is None or key != self._key:
            args = (parameters, service.settings, service.keys)
            if strategy.parameter_schema.username is not None:
                await self.forget_failure()  # of an attempt with other settings
                self._attempt = await begin_attempt(tenant, service, parameters, self.device)
            if strategy.blocking:
                self._identity = await self._verify_in_thread(strategy, *args)
            else:
                self._identity = strategy.verify(*args)
            self._key = key
        return self._identity

    async def _verify_in_thread(self, strategy: Strategy, *args: Any) -> Identity | Choice:
        # With its context: `verify` sets the key ID in `log_context`.
        run: Callable[..., Identity | Choice] = copy_context().run
        try:
            return await run_in_thread(run, strategy.verify, *args, pool=VERIFICATION)
        except (UpstreamUnavailable, QueueTimeout):  # no password was verified
            await self.forget_failure()
            raise

    @property
    def username_hash(self) -> bytes | None:
        """The hash of the username whose password was verified."""
        return None if self._attempt is None else self._attempt.username_hash

    async def forget_failure(self, error: Exception | None = None) -> None:
        """Call it after a sign-on, with the error if it has failed. Otherwise its password counts as wrong.

        After an error, only a password that was accepted does not count. With an unknown `clientId` it
        counts, because its response differs.
        """
        if error is not None and (self._identity is None or is_password_failure(error)):
            return
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            await attempt.forget_failure()


async def retry_once_if_stale(operation: Callable[[], Awaitable[_T]]) -> _T:
    """Raises the errors of the operation, and ApiError (503) if the snapshot is stale again."""
    try:
        return await operation()
    except StaleSnapshot as stale:
        old = stale.snapshot
        await _run_shared(("changed", old.id, stale.since), snapshot.invalidate, old.id, old, stale.since)
    try:
        return await operation()
    except StaleSnapshot:
        raise ApiError(UNAVAILABLE, log_reason="configuration_changing") from None


_shared_tasks: dict[Hashable, asyncio.Task[Any]] = {}


async def _run_shared(name: Hashable, function: Callable[..., _T], *args: Any) -> _T:
    """Call a function with `run_with_orm`. Concurrent calls with the same name share one execution."""
    key = (asyncio.get_running_loop(), name)
    task = _shared_tasks.get(key)
    if task is None:
        task = _shared_tasks[key] = asyncio.create_task(run_with_orm(_call_on_primary, function, *args))
        task.add_done_callback(lambda _: _shared_tasks.pop(key))
    try:
        # If the request that created the task is cancelled, the others still need its result.
        return await complete(task)
    except Exception as error:  # noqa: BLE001
        raise copy_exception(error) from error.__cause__


def _call_on_primary(function: Callable[..., _T], *args: Any) -> _T:
    # After a failover, a thread's connection may still lead to the old primary. In a thread that only reads,
    # nothing else detects this.
    close_if_read_only()
    return function(*args)
