"""Redeeming session tokens. A single UPDATE checks and redeems a token, in the transaction of the sign-on."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from ags.sessions.models import SecurityEvent
from ags.sessions.request_context import RequestContext
from ags.sessions.services.devices import KnownDevice, NewDevice, Proof, SignOnRequest
from ags.sessions.services.issue import REDEMPTION_COLUMNS
from ags.sessions.services.redeemer import Redeemer, Redemption, redemptions_table
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.client_tokens import SignOn
from ags.sessions.tokens.opaque import token_hashes
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# Statements are built from constants.
# ruff: noqa: S608


def redeem(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    token: str,
    device: NewDevice | KnownDevice,
    context: RequestContext,
) -> Awaitable[SignOn]:
    """Committed when this returns. Raises `StaleSnapshot`, and `TokenRejected`, which uses up no token."""
    return _redeemer.redeem(_Redemption(tenant, service, context, token_hashes(token), device))


@dataclass(frozen=True, slots=True)
class _Redemption(Redemption):
    device: NewDevice | KnownDevice

    def row(self) -> dict[str, Any]:
        return {
            **Redemption.row(self),
            "correlation_id": self.context.correlation_id,
            "client_address": self.context.client_address,
            "client_id": self.device.client_id,
        }

    def sign_on_request(self, columns: Sequence[Any]) -> SignOnRequest:
        return SignOnRequest(self.tenant, self.device, self.context, Proof(*columns))


_COLUMNS = {"correlation_id": "text", "client_address": "inet", "client_id": "text"}


@sql.cached_sql
def _redeem_sql(hash_count: int) -> str:
    # Locks rows in the order of the ID, so that concurrent statements cannot deadlock.
    return f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {sql.now()}, redemption_correlation_id = g.correlation_id,
       redemption_address = g.client_address, client_id = g.client_id
  FROM (SELECT st.id AS token, g.row_number, {", ".join(f"g.{name}" for name in _COLUMNS)}
          FROM {redemptions_table(hash_count, **_COLUMNS)} AS g
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
  FROM {redemptions_table(hash_count, **_COLUMNS)} AS g
  JOIN ags_sessions_sessiontoken st
    ON st.tenant_id = g.tenant AND st.token_hash IN ({sql.numbered_columns("hash", hash_count)})
 CROSS JOIN {validity.SESSION_TOKEN_JOINS}
 WHERE t.id = st.tenant_id
"""


_redeemer = Redeemer(
    redeem_sql=_redeem_sql,
    restore_sql="UPDATE ags_sessions_sessiontoken SET "
    + ", ".join(f"{column} = NULL" for column in REDEMPTION_COLUMNS),
    state_sql=_state_sql,
    reuse_kind=SecurityEvent.Kind.SESSION_TOKEN_REUSED,
)
