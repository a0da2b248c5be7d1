"""Redeeming session tokens. A single UPDATE checks and redeems a token, in the transaction of the sign-on."""

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
    sign_on_or_raise,
)
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.jwt import SignOn
from ags.sessions.tokens.opaque import token_hashes
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# Statements are built from constants.
# ruff: noqa: S608


async def redeem(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    token: str,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> SignOn:
    """Committed when this returns. Raises `StaleSnapshot`, and `TokenRejected`, which uses up no token."""
    redemption = _Redemption(tenant, service, correlation_id, token_hashes(token), device)
    outcome: Outcome | None = await _redemptions.submit(redemption)
    if outcome is None:
        raise await _rejections.explain(redemption)
    return sign_on_or_raise(outcome)


@dataclass(frozen=True, slots=True)
class _Redemption(single_use.Redemption):
    device: NewDevice | KnownDevice


async def _redeem(redemptions: Sequence[_Redemption]) -> list[Outcome | None]:
    rows = [redemption.row() for redemption in redemptions]
    statement = _redeem_sql(len(redemptions[0].hashes))
    async with transaction() as opened:
        redeemed = sql.order_results(rows, await opened.fetch_all(statement, sql.values_params(rows)))
        proofs = [None if proof is None else Proof(*proof) for proof in redeemed]
        requests = [
            SignOnRequest(redemption.tenant, redemption.device, redemption.correlation_id)
            for redemption in redemptions
        ]
        return await sign_on_devices(opened, requests, proofs, _RESTORE_SQL)


_redemptions = Batcher(_redeem)

_RESTORE_SQL = "UPDATE ags_sessions_sessiontoken SET redeemed_at = NULL"


@sql.cached_sql
def _redeem_sql(hash_count: int) -> str:
    # Locks rows in the order of the ID, so that concurrent statements cannot deadlock.
    return f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {sql.now()}
  FROM (SELECT st.id AS token, g.row_number
          FROM {single_use.redemptions_table(hash_count)} AS g
          JOIN ags_sessions_sessiontoken st
            ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.numbered_columns("hash", hash_count)})
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
def _state_sql(hash_count: int) -> str:
    return f"""
SELECT g.row_number, st.id, st.account_id, st.redeemed_at IS NOT NULL, st.revoked_at IS NOT NULL,
       st.expires_at <= {sql.now()}, st.service_id, {validity.SESSION_TOKEN_INVALID_REASON}
  FROM {single_use.redemptions_table(hash_count)} AS g
  JOIN ags_sessions_sessiontoken st
    ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.numbered_columns("hash", hash_count)})
 CROSS JOIN {validity.SESSION_TOKEN_JOINS}
 WHERE t.id = st.tenant_id
"""


_rejections = single_use.RejectionExplainer(_state_sql, SecurityEvent.Kind.SESSION_TOKEN_REUSED)
