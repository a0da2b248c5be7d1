"""Redeeming a session token: one transaction, in which one UPDATE decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions.models import SecurityEvent
from ags.sessions.services import single_use
from ags.sessions.services.devices import (
    KnownDevice,
    NewDevice,
    Outcome,
    Proof,
    SignOnRequest,
    sign_on_devices,
    signed_on,
)
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.jwt import SignOn
from ags.sessions.tokens.opaque import token_hashes
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# Statements are put together from constants.
# ruff: noqa: S608


async def redeem(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    token: str,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> SignOn:
    """Spend the session token and sign the device on; when this returns, both are committed.

    Raises `TokenRejected`, which leaves the token as it was, `StaleSnapshot` if the tenant, service or key
    has changed since it was read, and Django's database errors.
    """
    redemption = _Redemption(tenant, service, correlation_id, token_hashes(token), device)
    outcome: Outcome | None = await _redemptions.submit(redemption)
    if outcome is None:
        raise await _rejections.explain(redemption)
    return signed_on(outcome)


@dataclass(frozen=True, slots=True)
class _Redemption(single_use.Redemption):
    device: NewDevice | KnownDevice


async def _redeem(redemptions: Sequence[_Redemption]) -> list[Outcome | None]:
    """Return the sign-on of each, or why it was denied; None where the token could not be redeemed."""
    rows = [one.row() for one in redemptions]
    spend = _spend_sql(len(redemptions[0].hashes))
    async with transaction() as opened:
        spent = sql.in_order(rows, await opened.fetch_all(spend, sql.values_params(rows)))
        proofs = [None if proof is None else Proof(*proof) for proof in spent]
        requests = [SignOnRequest(one.tenant, one.device, one.correlation_id) for one in redemptions]
        return await sign_on_devices(opened, requests, proofs, _RESTORE)


_redemptions = Batcher(_redeem)

_RESTORE = "UPDATE ags_sessions_sessiontoken SET redeemed_at = NULL"


@sql.cached_sql
def _spend_sql(hashes: int) -> str:
    # In order, so that two transactions that meet in the same tokens wait for each other one way round.
    return f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {sql.now()}
  FROM (SELECT st.id AS token, g.row_number
          FROM {single_use.redemption_rows(hashes)} AS g
          JOIN ags_sessions_sessiontoken st
            ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.numbered_columns("hash", hashes)})
           AND st.service_id = g.service
         CROSS JOIN {validity.SESSION_TOKEN_JOINS}
         WHERE st.redeemed_at IS NULL AND st.revoked_at IS NULL AND st.expires_at > {sql.now()}
           AND t.id = st.tenant_id AND t.version = g.version
           AND ({validity.SESSION_TOKEN_INVALID_REASON}) IS NULL
         ORDER BY st.id {sql.lock_rows("st")}) AS g
 WHERE st.id = g.token AND st.redeemed_at IS NULL AND st.revoked_at IS NULL
RETURNING {sql.row_number()}, account_id, service_id, key_id, created_at, id
"""


@sql.cached_sql
def _state_sql(hashes: int) -> str:
    return f"""
SELECT g.row_number, st.id, st.account_id, st.redeemed_at IS NOT NULL, st.revoked_at IS NOT NULL,
       st.expires_at <= {sql.now()}, st.service_id, {validity.SESSION_TOKEN_INVALID_REASON}
  FROM {single_use.redemption_rows(hashes)} AS g
  JOIN ags_sessions_sessiontoken st
    ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.numbered_columns("hash", hashes)})
 CROSS JOIN {validity.SESSION_TOKEN_JOINS}
 WHERE t.id = st.tenant_id
"""


_rejections = single_use.Rejections(_state_sql, SecurityEvent.Kind.SESSION_TOKEN_REUSED)
