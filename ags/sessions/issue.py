"""Accepting a proof: one statement that decides, and stores it under a session token, at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import Error

from ags.database import database, fetch_all
from ags.database.batching import Batcher, Row, own_copy
from ags.sessions import dialect
from ags.sessions.denial import Stale
from ags.sessions.device import Proof
from ags.sessions.standing import KEY_STATES
from ags.sessions.tokens import hash_of, new_token
from providers.contract import Identity, Refusal, Refused
from tenants.view import ServiceView, TenantView

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""The last moment that Python, and so a row, can have: a `jti` is guarded no longer."""

CLOCK_MARGIN = 60.0
"""Seconds by which the clock of a process may be behind the database's before a replay could pass."""


async def issue(tenant: TenantView, service: ServiceView, identity: Identity, correlation_id: str) -> str:
    """Return a new session token, once it is committed. Raises as `consume_proof`."""
    token = new_token()
    ttl: int = service.settings["session_token_ttl"]
    row = _row(tenant, service, identity, correlation_id, token=token, ttl=ttl)
    rejection = await _writes.submit(row)
    if rejection is not None:
        raise rejection.error(tenant)
    return token


def consume_proof(tenant: TenantView, service: ServiceView, identity: Identity, correlation_id: str) -> Proof:
    """Store the proof, within a transaction, under a session token that is spent from the beginning.

    Raises `Refused(REPLAYED)` when the proof was accepted before, `Refused(KEY_NOT_IN_FORCE)` when the key is
    too early or too late by the database's clock, `Stale` when tenant, service or key are no longer what was
    read, and Django's database errors.
    """
    row = _row(tenant, service, identity, correlation_id, token=new_token(), ttl=0)
    stored = dialect.several(_insert_sql(True), dialect.giving([row]))
    if not stored:
        raise explain_rejection(tenant, row)
    return Proof(identity.account_id, service.id, identity.key_id, stored[0][1])


def explain_rejection(tenant: TenantView, row: Row) -> Exception:
    """Return why the database rejected a proof, as a row of at least `acceptance_params`."""
    ((_, *reasons),) = dialect.several(_rejection_sql(), dialect.giving([{**dict.fromkeys(_COLUMNS), **row}]))
    return _Rejection(*reasons).error(tenant)


@dataclass(frozen=True, slots=True)
class _Rejection:
    """Why the deciding statement did not store a row, by what the database says a moment later.

    `stale_since`: the moment of that, as `Stale` has it. `failure`: the database did not say.
    """

    is_current: bool = False
    is_replayed: bool = False
    is_key_out_of_time: bool = False
    failure: Error | None = None
    stale_since: float | None = None

    def error(self, tenant: TenantView) -> Exception:
        """Return what to raise."""
        if self.failure is not None:
            return own_copy(self.failure)
        if self.is_current and self.is_replayed:
            return Refused(Refusal.REPLAYED, "jti")
        if self.is_current and self.is_key_out_of_time:
            return Refused(Refusal.KEY_NOT_IN_FORCE)
        return Stale(tenant, self.stale_since)


async def _insert(rows: Sequence[Row]) -> list[_Rejection | None]:
    """Insert session tokens; return why each was rejected, None where it was not."""
    stored = {bytes(row[0]) for row in await fetch_all(_insert_sql(False), dialect.giving(rows))}
    rejected = [row for row in rows if row["token_hash"] not in stored]
    if not rejected:
        return [None] * len(rows)
    rejections = await _explain(rejected)
    return [None if row["token_hash"] in stored else rejections[row["token_hash"]] for row in rows]


async def _explain(rejected: Sequence[Row]) -> dict[bytes, _Rejection]:
    """Return why rows were rejected, by the hash of the token. One statement for all: a change meets many."""
    at = time.monotonic()
    try:
        rows = await fetch_all(_rejection_sql(), dialect.giving(rejected))
    except Error as error:  # others may be stored, which this must not undo
        return {row["token_hash"]: _Rejection(failure=error) for row in rejected}
    return {bytes(row[0]): _Rejection(row[1], row[2], row[3], stale_since=at) for row in rows}


_writes = Batcher(_insert, lambda: database().max_batch_size)


def _row(
    tenant: TenantView,
    service: ServiceView,
    identity: Identity,
    correlation_id: str,
    *,
    token: str,
    ttl: int,
) -> Row:
    return {
        **acceptance_params(tenant, service, identity.key_id),
        "token_hash": hash_of(token),
        "account_id": identity.account_id,
        "correlation_id": correlation_id,
        "jti": identity.jti,
        "ttl": ttl,
        "guard": min((identity.replayable_until or 0.0) + CLOCK_MARGIN, LATEST.timestamp()),
    }


def acceptance_params(tenant: TenantView, service: ServiceView, key_id: int | None) -> dict[str, Any]:
    """Return the parameters of `acceptance_join`."""
    return {"tenant": tenant.id, "version": tenant.version, "service": service.id, "key": key_id}


def acceptance_join(given: str = dialect.PARAMETER) -> str:
    """Return the condition under which a proof is accepted: its rows `t`, `s` and perhaps `k` are in force.

    What it is `given` (`acceptance_params`) are parameters, or the columns of a row.
    """
    now = dialect.now()
    tenant, version, service, key = (given.format(name) for name in ("tenant", "version", "service", "key"))
    return f"""tenants_tenant t ON t.id = {tenant} AND t.enabled AND t.version = {version}
  JOIN tenants_service s ON s.id = {service} AND s.tenant_id = t.id AND s.enabled
  LEFT JOIN tenants_key k ON k.id = {key} AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {now})
   AND (k.not_after IS NULL OR k.not_after > {now})
 WHERE ({key} IS NULL OR k.id IS NOT NULL)"""


_COLUMNS = {
    "tenant": "text",
    "version": "bigint",
    "service": "bigint",
    "key": "bigint",
    "token_hash": "bytea",
    "account_id": "text",
    "correlation_id": "text",
    "jti": "text",
    "ttl": "integer",
    "guard": "double precision",
}


@dialect.written_once
def _insert_sql(spent: bool) -> str:
    # Ordered, so that two statements that meet in the same assertions wait for each other one way round.
    now, expires = dialect.now(), dialect.after("ttl", "g.{}")
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, jti,
        created_at, expires_at, redeemed_at, dead_after)
SELECT t.id, s.id, k.id, g.token_hash, g.account_id, g.correlation_id, g.jti,
       {now}, {expires}, {now if spent else "NULL"}, {dialect.later(expires, dialect.moment("guard", "g.{}"))}
  FROM {dialect.given(**_COLUMNS)} AS g
  JOIN {acceptance_join("g.{}")}
 ORDER BY g.jti, t.id, s.id
    ON CONFLICT DO NOTHING
RETURNING token_hash{", created_at" if spent else ""}
"""  # noqa: S608 - put together from constants


@dialect.written_once
def _rejection_sql() -> str:
    now = dialect.now()
    return f"""
SELECT g.token_hash, t.id IS NOT NULL,
       g.jti IS NOT NULL AND EXISTS (SELECT 1 FROM ags_sessions_sessiontoken st
                WHERE st.tenant_id = g.tenant AND st.jti = g.jti
                  AND (st.key_id = g.key
                       OR (g.key IS NULL AND st.key_id IS NULL AND st.service_id = g.service))),
       EXISTS (SELECT 1 FROM tenants_key k
                WHERE k.id = g.key AND k.tenant_id = g.tenant
                  AND (k.not_before > {now} OR k.not_after <= {now}))
  FROM {dialect.given(**_COLUMNS)} AS g
  LEFT JOIN tenants_tenant t ON t.id = g.tenant AND t.enabled AND t.version = g.version
"""  # noqa: S608 - put together from constants
