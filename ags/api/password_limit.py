"""The limit on wrong passwords of a user name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ags.api.errors import TOO_MANY_PASSWORD_FAILURES, ApiError
from ags.limits import PASSWORD_FAILURES
from ags.sessions.services.devices import KnownDevice, NewDevice
from ags.sessions.services.usernames import has_signed_on, username_hashes
from providers.contract import MAX_PASSWORD_FAILURES
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


@dataclass(frozen=True, slots=True)
class PasswordAttempt:
    """A password that is being verified. It counts as a failure unless `forget_failure` is called."""

    maximum: int
    tenant_id: str
    counted: str
    username_hash: bytes = field(repr=False)

    async def forget_failure(self) -> None:
        if self.maximum:
            await PASSWORD_FAILURES.undo(self.maximum, self.tenant_id, self.counted)


async def begin_attempt(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    parameters: Mapping[str, str],
    device: NewDevice | KnownDevice | None,
) -> PasswordAttempt | None:
    """Count a password as a failure, before it is verified: so at most the maximum reach the upstream.

    Return None if the service has no passwords. A known device is counted by itself if its user name has too
    many failures. Raises ApiError (429), and Django's database errors.
    """
    name = service.strategy.parameter_schema.username
    if name is None or name not in parameters:
        return None
    maximum: int = service.settings.get("max_password_failures", MAX_PASSWORD_FAILURES)
    hashes = username_hashes(tenant, service, parameters[name])
    counted = hashes[0].hex()
    remaining = maximum and await PASSWORD_FAILURES.hit(maximum, tenant.id, counted)
    if (
        remaining
        and isinstance(device, KnownDevice)
        and await has_signed_on(tenant.id, device.client_id, hashes)
    ):
        counted = f"{counted} {device.client_id}"
        remaining = await PASSWORD_FAILURES.hit(maximum, tenant.id, counted)
    if remaining:
        PASSWORD_FAILURES.refusals.increment()
        raise ApiError(TOO_MANY_PASSWORD_FAILURES, retry_after=math.ceil(remaining))
    return PasswordAttempt(maximum, tenant.id, counted, hashes[0])
