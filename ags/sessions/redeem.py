"""Redeeming a session token: one transaction, in which one UPDATE decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions import single_use, sql, standing
from ags.sessions.client_tokens import SignOn
from ags.sessions.devices import (
    KnownDevice,
    NewDevice,
    Outcome,
    Proof,
    SignOnRequest,
    sign_on_devices,
    signed_on,
)
from ags.sessions.models import SecurityEvent
from ags.sessions.tokens import hashes_of
from tenants.view import ServiceView, TenantView

# Statements are put together from constants.
# ruff: noqa: S608


async def redeem(
    tenant: TenantView,
    service: ServiceView,
    token: str,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> SignOn:
    """Spend the session token and sign the device on; when this returns, both are committed.

    Raises `Denied`, which leaves the token as it was, `Stale` when tenant, service or key are no longer what
    was read, and Django's database errors.
    """
    redemption = _Redemption(tenant, device, correlation_id, service, hashes_of(token))
    outcome: Outcome | None = await _redemptions.submit(redemption)
    if outcome is None:
        raise await _explain_rejection(redemption)
    return signed_on(outcome)


@dataclass(frozen=True, slots=True)
class _Redemption(SignOnRequest):
    service: ServiceView
    hashes: Sequence[bytes]

    def row(self) -> dict[str, Any]:
        """Return the values of the statements below."""
        return {
            "tenant": self.tenant.id,
            "service": self.service.id,
            "version": self.tenant.version,
            **sql.numbered("hash", self.hashes),
        }


async def _redeem(redemptions: Sequence[_Redemption]) -> list[Outcome | None]:
    """Return the sign-on of each, or why it was denied; None where the token could not be redeemed."""
    rows = [one.row() for one in redemptions]
    spend = _spend_sql(len(redemptions[0].hashes))
    async with transaction() as opened:
        spent = sql.in_order(rows, await opened.fetch_all(spend, sql.values_params(rows)))
        proofs = [None if proof is None else Proof(*proof) for proof in spent]
        return await sign_on_devices(opened, redemptions, proofs, _RESTORE)


_redemptions = Batcher(_redeem)

_RESTORE = "UPDATE ags_sessions_sessiontoken SET redeemed_at = NULL"


async def _explain_rejection(redemption: _Redemption) -> Exception:
    return await single_use.explain_rejection(
        redemption.tenant,
        redemption.service,
        await _states.submit(redemption),
        SecurityEvent.Kind.SESSION_TOKEN_REUSED,
        redemption.correlation_id,
    )


async def _read_states(redemptions: Sequence[_Redemption]) -> list[Sequence[Any] | None]:
    statement = _state_sql(len(redemptions[0].hashes))
    return await sql.select_each(statement, [one.row() for one in redemptions])


_states = Batcher(_read_states)


def _values(hashes: int, **more: str) -> str:
    columns = sql.numbered("hash", ["bytea"] * hashes)
    return sql.values_table(tenant="text", service="bigint", version="bigint", **columns, **more)


@sql.cached_sql
def _spend_sql(hashes: int) -> str:
    # In order, so that two transactions that meet in the same tokens wait for each other one way round.
    return f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {sql.now()}
  FROM (SELECT st.id AS token, g.row_number
          FROM {_values(hashes)} AS g
          JOIN ags_sessions_sessiontoken st
            ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.columns("hash", hashes)})
           AND st.service_id = g.service
         CROSS JOIN {standing.OF_SESSION_TOKEN}
         WHERE st.redeemed_at IS NULL AND st.revoked_at IS NULL AND st.expires_at > {sql.now()}
           AND t.id = st.tenant_id AND t.version = g.version AND ({standing.SESSION_TOKEN}) IS NULL
         ORDER BY st.id {sql.lock_rows("st")}) AS g
 WHERE st.id = g.token AND st.redeemed_at IS NULL AND st.revoked_at IS NULL
RETURNING {sql.row_number()}, account_id, service_id, key_id, created_at, id
"""


@sql.cached_sql
def _state_sql(hashes: int) -> str:
    return f"""
SELECT g.row_number, st.id, st.account_id, st.redeemed_at IS NOT NULL, st.revoked_at IS NOT NULL,
       st.expires_at <= {sql.now()}, st.service_id, {standing.SESSION_TOKEN}
  FROM {_values(hashes)} AS g
  JOIN ags_sessions_sessiontoken st
    ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.columns("hash", hashes)})
 CROSS JOIN {standing.OF_SESSION_TOKEN}
 WHERE t.id = st.tenant_id
"""
