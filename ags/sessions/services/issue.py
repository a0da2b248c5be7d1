"""Accepting a proof: one statement that decides, and stores it under a session token, at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ags.database import INSERTS, Transaction, fetch_all
from ags.database.batching import Batcher
from ags.sessions.exceptions import StaleSnapshot
from ags.sessions.services.devices import Proof
from ags.sessions.sql import functions as sql
from ags.sessions.sql.validity import KEY_STATES
from ags.sessions.tokens.opaque import hash_token, new_token
from providers.contract import FailureReason, Identity, VerificationFailed
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""The last moment that Python, and so a row, can have: a `jti` is guarded no longer."""

CLOCK_MARGIN = 60.0
"""Seconds by which the clock of a process may be behind the database's before a replay could pass."""

REPLAYS_REMEMBERED = 1024
"""Replayed proofs that a process rejects without the database, the latest ones: 1 MiB at most."""


async def issue(
    tenant: TenantSnapshot, service: ServiceSnapshot, identity: Identity, correlation_id: str
) -> str:
    """Return a new session token, once it is committed.

    Raises as `explain_rejection` returns, and Django's database errors.
    """
    token = new_token()
    ttl: int = service.settings["session_token_ttl"]
    row = _row(tenant, service, identity, correlation_id, token=token, ttl=ttl)
    reject_known_replay(row)
    if not await _session_tokens.submit(row):
        raise await explain_rejection(tenant, row)
    return token


async def _insert(rows: Sequence[sql.Row]) -> list[bool]:
    """Insert session tokens; return whether each was stored."""
    stored = {bytes(row[0]) for row in await fetch_all(_insert_sql(False), sql.values_params(rows), INSERTS)}
    return [row["token_hash"] in stored for row in rows]


_session_tokens = Batcher(_insert)


def spent_row(
    tenant: TenantSnapshot, service: ServiceSnapshot, identity: Identity, correlation_id: str
) -> Mapping[str, Any]:
    """Return the row of a session token that is spent from the beginning, and is given to nobody."""
    return _row(tenant, service, identity, correlation_id, token=new_token(), ttl=0)


async def consume_proofs(transaction: Transaction, rows: Sequence[Mapping[str, Any]]) -> list[Proof | None]:
    """Store proofs as spent session tokens (`spent_row`), in a transaction; None for one that is rejected."""
    stored = await transaction.fetch_all(_insert_sql(True), sql.values_params(rows))
    accepted = {bytes(token_hash): rest for token_hash, *rest in stored}
    return [
        Proof(row["account_id"], row["service"], row["key"], *accepted[row["token_hash"]])
        if row["token_hash"] in accepted
        else None
        for row in rows
    ]


known_replays: dict[tuple[Any, ...], None] = {}
"""Proofs that the database has rejected as replayed. It will for as long as they verify."""


def reject_known_replay(row: sql.Row) -> None:
    """Raise `VerificationFailed(REPLAYED)` for a proof that this process has seen replayed before.

    It costs less than to accept a proof. The database decides on every other one.
    """
    if _proof(row) in known_replays:
        raise VerificationFailed(FailureReason.REPLAYED, "jti")


def _proof(row: sql.Row) -> tuple[Any, ...]:
    return row["tenant"], row["service"], row["key"], row["jti"]


def _remember_replay(row: sql.Row) -> None:
    known_replays[_proof(row)] = None
    if len(known_replays) > REPLAYS_REMEMBERED:
        known_replays.pop(next(iter(known_replays)), None)  # another thread of runserver may have


async def explain_rejection(tenant: TenantSnapshot, row: Mapping[str, Any]) -> Exception:
    """Return why the database rejected a proof: a row of at least `acceptance_params`.

    `VerificationFailed(REPLAYED)` if the proof was accepted before, `VerificationFailed(KEY_NOT_IN_FORCE)` if
    the key is too early or too late by the database's clock, `StaleSnapshot` if the tenant, service or key
    has changed. Raises Django's database errors.
    """
    values = {name: row.get(name) for name in _PROOF_COLUMNS}
    since, is_current, is_replayed, is_key_out_of_time = await _rejections.submit(values)
    if is_current and is_replayed:
        _remember_replay(row)
        return VerificationFailed(FailureReason.REPLAYED, "jti")
    if is_current and is_key_out_of_time:
        return VerificationFailed(FailureReason.KEY_NOT_IN_FORCE)
    return StaleSnapshot(tenant, since)


async def _explain(rows: Sequence[sql.Row]) -> list[tuple[float, bool, bool, bool]]:
    """Explain rejections by one statement, for a change meets many. Return its time, too."""
    since = time.monotonic()
    reasons = await sql.select_each(_rejection_sql(), rows, INSERTS)
    return [(since, *map(bool, row or ())) for row in reasons]  # type: ignore[misc] # each row has three


_rejections = Batcher(_explain)


def _row(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    identity: Identity,
    correlation_id: str,
    *,
    token: str,
    ttl: int,
) -> sql.Row:
    return {
        **acceptance_params(tenant, service, identity.key_id),
        "token_hash": hash_token(token),
        "account_id": identity.account_id,
        "correlation_id": correlation_id,
        "jti": identity.jti,
        "ttl": ttl,
        "guard": min((identity.replayable_until or 0.0) + CLOCK_MARGIN, LATEST.timestamp()),
    }


def acceptance_params(tenant: TenantSnapshot, service: ServiceSnapshot, key_id: int | None) -> dict[str, Any]:
    """Return the parameters of `acceptance_join`."""
    return {"tenant": tenant.id, "version": tenant.version, "service": service.id, "key": key_id}


def acceptance_join() -> str:
    """Return the condition under which a proof is accepted: its rows `t`, `s` and perhaps `k` are in force.

    What they are joined to is the row `g`, with the columns of `acceptance_params`.
    """
    return f"""tenants_tenant t ON t.id = g.tenant AND t.enabled AND t.version = g.version
  JOIN tenants_service s ON s.id = g.service AND s.tenant_id = t.id AND s.enabled
  LEFT JOIN tenants_key k ON k.id = g.key AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {sql.now()})
   AND (k.not_after IS NULL OR k.not_after > {sql.now()})
 WHERE (g.key IS NULL OR k.id IS NOT NULL)"""


_PROOF_COLUMNS = {"tenant": "text", "version": "bigint", "service": "bigint", "key": "bigint", "jti": "text"}

_COLUMNS = {
    **_PROOF_COLUMNS,
    "token_hash": "bytea",
    "account_id": "text",
    "correlation_id": "text",
    "ttl": "integer",
    "guard": "double precision",
}


@sql.cached_sql
def _insert_sql(spent: bool) -> str:
    # Ordered, so that two statements that meet in the same assertions wait for each other one way round.
    now, expires = sql.now(), sql.now_plus_seconds("g.ttl")
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, jti,
        created_at, expires_at, redeemed_at, dead_after)
SELECT t.id, s.id, k.id, g.token_hash, g.account_id, g.correlation_id, g.jti,
       {now}, {expires}, {now if spent else "NULL"}, {sql.greatest(expires, sql.from_epoch("g.guard"))}
  FROM {sql.values_table(**_COLUMNS)} AS g
  JOIN {acceptance_join()}
 ORDER BY g.jti, t.id, s.id
    ON CONFLICT DO NOTHING
RETURNING token_hash{", created_at, id" if spent else ""}
"""  # noqa: S608 - put together from constants


@sql.cached_sql
def _rejection_sql() -> str:
    now = sql.now()
    return f"""
SELECT g.row_number, t.id IS NOT NULL,
       g.jti IS NOT NULL AND EXISTS (SELECT 1 FROM ags_sessions_sessiontoken st
                WHERE st.tenant_id = g.tenant AND st.jti = g.jti
                  AND (st.key_id = g.key
                       OR (g.key IS NULL AND st.key_id IS NULL AND st.service_id = g.service))),
       k.not_before > {now} OR k.not_after <= {now}
  FROM {sql.values_table(**_PROOF_COLUMNS)} AS g
  LEFT JOIN tenants_tenant t ON t.id = g.tenant AND t.enabled AND t.version = g.version
  LEFT JOIN tenants_key k ON k.id = g.key AND k.tenant_id = g.tenant
"""  # noqa: S608 - put together from constants
