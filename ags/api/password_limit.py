"""The limit on wrong passwords of a username."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ags.api.errors import TOO_MANY_PASSWORD_FAILURES, ApiError
from ags.limits import PASSWORD_FAILURES, Hit
from ags.sessions.exceptions import InvalidReason, RejectReason, TokenRejected
from ags.sessions.services.devices import KnownDevice, NewDevice
from ags.sessions.services.usernames import has_signed_on, username_hashes, username_key
from providers.contract import MAX_PASSWORD_FAILURES, VerificationFailed
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


@dataclass(frozen=True, slots=True)
class PasswordAttempt:
    """A password that is being verified. It counts as a failure unless `forget_failure` is called."""

    hit: Hit | None
    """None: there is no limit."""
    username_hash: bytes = field(repr=False)

    async def forget_failure(self) -> None:
        if self.hit is not None:
            await self.hit.undo()


def is_password_failure(error: Exception) -> bool:
    """Return whether a sign-on has failed because of its password, or its unknown `clientId`."""
    if isinstance(error, TokenRejected):
        return error.reason in (RejectReason.DEVICE_UNKNOWN, InvalidReason.DEVICE_DELETED)
    return isinstance(error, VerificationFailed)


async def begin_attempt(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    parameters: Mapping[str, str],
    device: NewDevice | KnownDevice | None,
) -> PasswordAttempt | None:
    """Count a password as a failure, before it is verified: so at most the maximum reach the upstream.

    Return None if the service has no passwords of subscribers. A known device is counted by itself if its
    username has too many failures. Raises ApiError (429), and Django's database errors.
    """
    username = service.strategy.get_username(parameters, service.settings)
    if username is None:
        return None
    maximum: int = service.settings.get("max_password_failures", MAX_PASSWORD_FAILURES)
    hashes = username_hashes(tenant, service, username)
    if not maximum:
        return PasswordAttempt(None, hashes[0])
    key = username_key(tenant, service, username)
    hit = await PASSWORD_FAILURES.try_hit(maximum, tenant.id, key)
    if (
        hit.remaining
        and isinstance(device, KnownDevice)
        and await has_signed_on(tenant.id, device.client_id, hashes)
    ):
        hit = await PASSWORD_FAILURES.try_hit(maximum, tenant.id, f"{key} {device.client_id}")
    if hit.remaining:
        PASSWORD_FAILURES.refusals.increment()
        raise ApiError(TOO_MANY_PASSWORD_FAILURES, retry_after=math.ceil(hit.remaining))
    return PasswordAttempt(hit, hashes[0])
