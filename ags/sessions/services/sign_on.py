"""Signing on by a proof itself: one transaction, in which one INSERT decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions.services.devices import (
    KnownDevice,
    NewDevice,
    Outcome,
    SignOnRequest,
    sign_on_devices,
    signed_on,
)
from ags.sessions.services.issue import consume_proofs, explain_rejection, reject_known_replay, spent_row
from ags.sessions.tokens.jwt import SignOn
from providers.contract import Identity
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


async def sign_on(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    identity: Identity,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> SignOn:
    """Accept the proof and sign the device on; when this returns, both are committed.

    Raises as `explain_rejection` returns, `TokenRejected`, which leaves a proof with a `jti` unused, and
    Django's database errors.
    """
    row = spent_row(tenant, service, identity, correlation_id)
    reject_known_replay(row)
    outcome: Outcome | None = await _sign_ons.submit(_Presented(tenant, device, correlation_id, row))
    if outcome is None:
        raise await explain_rejection(tenant, row)
    return signed_on(outcome)


@dataclass(frozen=True, slots=True)
class _Presented(SignOnRequest):
    row: Mapping[str, Any]


async def _sign_on(presented: Sequence[_Presented]) -> list[Outcome | None]:
    """Return the sign-on of each, or why it was denied; None where the proof was rejected."""
    async with transaction() as opened:
        proofs = await consume_proofs(opened, [one.row for one in presented])
        return await sign_on_devices(opened, presented, proofs, _RESTORE)


_sign_ons = Batcher(_sign_on)

_RESTORE = "DELETE FROM ags_sessions_sessiontoken"
