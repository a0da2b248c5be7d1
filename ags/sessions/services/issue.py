"""Issuing session tokens. A single INSERT checks a proof, consumes it and stores the token."""

from collections.abc import Sequence
from datetime import UTC, datetime

from ags.database import INSERTS, Transaction, fetch_all
from ags.database.batching import Batcher
from ags.sessions.request_context import RequestContext
from ags.sessions.services.devices import Proof
from ags.sessions.services.replays import PROOF_COLUMNS, explain_rejection, reject_known_replay
from ags.sessions.services.sign_on_limit import count_sign_on
from ags.sessions.sql import functions as sql
from ags.sessions.sql.validity import KEY_STATES
from ags.sessions.tokens.opaque import new_token
from providers.contract import Identity
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

MAX_DATETIME = datetime(9999, 12, 31, tzinfo=UTC)
"""The latest time that a row can hold: the upper limit for keeping a `jti`."""

CLOCK_MARGIN = 60.0
"""Seconds that a `jti` is kept longer, for processes whose clock is behind the database's."""


async def issue(
    tenant: TenantSnapshot, service: ServiceSnapshot, identity: Identity, context: RequestContext
) -> str:
    """The token is committed when this returns.

    Raises the exceptions that `explain_rejection` returns, and `TokenRejected` if the account has too many.
    """
    token, token_hash = new_token()
    ttl: int = service.settings["session_token_ttl"]
    row = token_row(tenant, service, identity, context, token_hash=token_hash, ttl=ttl)
    reject_known_replay(row)
    await count_sign_on(tenant, identity.account_id)
    if not await _session_tokens.submit(row):
        raise await explain_rejection(tenant, row)
    return token


async def _insert(rows: Sequence[sql.Row]) -> list[bool]:
    stored = {bytes(row[0]) for row in await fetch_all(_insert_sql(False), sql.values_params(rows), INSERTS)}
    return [row["token_hash"] in stored for row in rows]


_session_tokens = Batcher("session_token", _insert)


async def consume_proofs(transaction: Transaction, rows: Sequence[sql.Row]) -> list[Proof | None]:
    """Store proofs (`token_row`) as redeemed session tokens. Return None for each rejected proof."""
    stored = await transaction.fetch_all(_insert_sql(True), sql.values_params(rows))
    accepted = {bytes(token_hash): rest for token_hash, *rest in stored}
    return [
        Proof(row["account_id"], row["service"], row["key"], *accepted[row["token_hash"]])
        if row["token_hash"] in accepted
        else None
        for row in rows
    ]


def token_row(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    identity: Identity,
    context: RequestContext,
    *,
    token_hash: bytes,
    ttl: int,
    client_id: str | None = None,
) -> sql.Row:
    """`client_id`: the device, if the token is redeemed at once."""
    context.account_id = identity.account_id
    return {
        "tenant": tenant.id,
        "version": tenant.version,
        "service": service.id,
        "key": identity.key_id,
        "token_hash": token_hash,
        "account_id": identity.account_id,
        "correlation_id": context.correlation_id,
        "kid": context.kid,
        "client_address": context.client_address,
        "client_id": client_id,
        "jti": identity.jti,
        "ttl": ttl,
        "replayable_until": min((identity.replayable_until or 0.0) + CLOCK_MARGIN, MAX_DATETIME.timestamp()),
    }


def acceptance_join() -> str:
    """Return the joins and the WHERE clause that accept a proof if its tenant, service and key are valid.

    They join `t`, `s` and `k` to the row `g` with the columns `tenant`, `version`, `service` and `key`.
    Without a key in `g`, there is no `k`.
    """
    return f"""tenants_tenant t ON t.id = g.tenant AND t.enabled AND t.version = g.version
  JOIN tenants_service s ON s.id = g.service AND s.tenant_id = t.id AND s.enabled
  LEFT JOIN tenants_key k ON k.id = g.key AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {sql.now()})
   AND (k.not_after IS NULL OR k.not_after > {sql.now()})
 WHERE (g.key IS NULL OR k.id IS NOT NULL)"""


REDEMPTION_COLUMNS = ("redeemed_at", "redemption_correlation_id", "redemption_address", "client_id")
"""The columns of a session token that are NULL until it is redeemed."""

_COLUMNS = {
    **PROOF_COLUMNS,
    "token_hash": "bytea",
    "account_id": "text",
    "correlation_id": "text",
    "kid": "text",
    "client_address": "inet",
    "client_id": "text",
    "ttl": "integer",
    "replayable_until": "double precision",
}


@sql.cached_sql
def _insert_sql(redeemed: bool) -> str:
    # Ordered, so that concurrent statements with the same assertions cannot deadlock.
    now, expires = sql.now(), sql.now_plus_seconds("g.ttl")
    dead_after = sql.greatest(expires, sql.from_epoch("g.replayable_until"))
    values = [now, "g.correlation_id", "g.client_address", "g.client_id"]
    redemption = values if redeemed else ["NULL"] * len(REDEMPTION_COLUMNS)
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, kid, client_address, jti,
        created_at, expires_at, dead_after, {", ".join(REDEMPTION_COLUMNS)})
SELECT t.id, s.id, k.id, g.token_hash, g.account_id, g.correlation_id, g.kid, g.client_address, g.jti,
       {now}, {expires}, {dead_after}, {", ".join(redemption)}
  FROM {sql.values_table(**_COLUMNS)} AS g
  JOIN {acceptance_join()}
 ORDER BY g.jti, t.id, s.id
    ON CONFLICT DO NOTHING
RETURNING token_hash{", created_at, id" if redeemed else ""}
"""  # noqa: S608 - built from constants
