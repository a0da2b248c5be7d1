"""Signing on with a proof, which is consumed in the transaction of the sign-on."""

from collections.abc import Sequence
from dataclasses import dataclass

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions.exceptions import TokenRejected
from ags.sessions.request_context import RequestContext
from ags.sessions.services.devices import KnownDevice, NewDevice, Outcome, SignOnRequest, sign_on_devices
from ags.sessions.services.issue import consume_proofs, token_row
from ags.sessions.services.replays import explain_rejection, reject_known_replay
from ags.sessions.services.sign_on_limit import count_sign_on
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.client_tokens import SignOn
from ags.sessions.tokens.opaque import new_token
from providers.contract import Identity
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


async def sign_on(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    identity: Identity,
    device: NewDevice | KnownDevice,
    context: RequestContext,
    *,
    username_hash: bytes | None = None,
) -> SignOn:
    """Committed when this returns. Raises as `issue` does, and `TokenRejected`, which uses up no `jti`.

    `username_hash`: that of `usernames.py`, stored with the device.
    """
    _, token_hash = new_token()  # the row is a session token that nobody receives
    row = token_row(
        tenant, service, identity, context, token_hash=token_hash, ttl=0, client_id=device.client_id
    )
    reject_known_replay(row)
    await count_sign_on(tenant, identity.account_id)
    outcome: Outcome | None = await _sign_ons.submit(
        _ProofRequest(tenant, device, context, row, username_hash)
    )
    if outcome is None:
        raise await explain_rejection(tenant, row)
    if isinstance(outcome, TokenRejected):
        raise outcome
    return outcome


@dataclass(frozen=True, slots=True)
class _ProofRequest:
    tenant: TenantSnapshot
    device: NewDevice | KnownDevice
    context: RequestContext
    row: sql.Row
    """Of `token_row`."""
    username_hash: bytes | None


async def _sign_on(requests: Sequence[_ProofRequest]) -> list[Outcome | None]:
    async with transaction() as opened:
        proofs = await consume_proofs(opened, [request.row for request in requests])
        sign_ons = [
            None
            if proof is None
            else SignOnRequest(each.tenant, each.device, each.context, proof, each.username_hash)
            for each, proof in zip(requests, proofs, strict=True)
        ]
        return await sign_on_devices(opened, sign_ons, restore="DELETE FROM ags_sessions_sessiontoken")


_sign_ons = Batcher("sign_on", _sign_on)
