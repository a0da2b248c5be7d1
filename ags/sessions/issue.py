"""Accepting a proof: one statement that decides, and stores it under a session token, at once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import Error, connection
from django.db.models import Q
from django.db.models.functions import Now

from ags.sessions import dialect
from ags.sessions.denial import Stale
from ags.sessions.device import Proof
from ags.sessions.models import SessionToken
from ags.sessions.standing import KEY_STATES
from ags.sessions.together import Row, Together
from ags.sessions.tokens import hash_of, new_token
from providers.contract import Identity, Refusal, Refused
from tenants.models import Key, Tenant
from tenants.view import ServiceView, TenantView

LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""The last moment that Python, and so a row, can have: a `jti` is guarded no longer."""

CLOCK_MARGIN = 60.0
"""Seconds by which the clock of a process may be behind the database's before a replay could pass."""


def issue(tenant: TenantView, service: ServiceView, identity: Identity, correlation_id: str) -> str:
    """Store a new session token and return it; it is committed when this returns. Raises as `accept`."""
    token = new_token()
    ttl: int = service.settings["session_token_ttl"]
    row = _row(tenant, service, identity, correlation_id, token=token, ttl=ttl)
    # Whoever is in a transaction stores in it, and not for others, who would be answered before its commit.
    outcome = _store([row])[0] if connection.in_atomic_block else _together.put(row)
    if outcome.stale_since is not None:
        raise Stale(tenant, outcome.stale_since)
    if not outcome.is_stored:
        raise why_not(tenant, service, identity.key_id, identity.jti)
    return token


def accept(tenant: TenantView, service: ServiceView, identity: Identity, correlation_id: str) -> Proof:
    """Store the proof, within a transaction, under a session token that is spent from the beginning.

    Raises `Refused(REPLAYED)` when the proof was accepted before, `Refused(KEY_NOT_IN_FORCE)` when the key is
    too early or too late by the database's clock, `Stale` when tenant, service or key are no longer what was
    read, and Django's database errors.
    """
    row = _row(tenant, service, identity, correlation_id, token=new_token(), ttl=0)
    stored = dialect.several(_storing(True), dialect.giving([row]))
    if not stored:
        raise why_not(tenant, service, identity.key_id, identity.jti)
    return Proof(identity.account_id, service.id, identity.key_id, stored[0][1])


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a row. `stale_since`: since when the tenant is known to have changed (`Stale`)."""

    is_stored: bool
    stale_since: float | None


def _store(rows: Sequence[Row]) -> list[_Outcome]:
    """Store session tokens; return of each what came of it."""
    stored = {bytes(row[0]) for row in dialect.several(_storing(False), dialect.giving(rows))}
    at = time.monotonic()
    refused = [row for row in rows if row["token_hash"] not in stored]
    stale = _stale(refused) if refused else ()
    return [_Outcome(row["token_hash"] in stored, at if row["token_hash"] in stale else None) for row in rows]


def _stale(refused: Sequence[Row]) -> set[bytes]:
    """Return the hashes of those whose tenant has another version by now.

    A change meets all that is under way at once: this is one question for what each would have to ask.
    """
    enabled = Tenant.objects.filter(pk__in={row["tenant"] for row in refused}, enabled=True)
    try:
        versions = dict(enabled.values_list("id", "version"))
    except Error:
        return set()  # for others may be stored; each of these asks by itself then, and is told so
    return {row["token_hash"] for row in refused if versions.get(row["tenant"]) != row["version"]}


_together = Together(_store, dialect.rows_at_once)


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
        **accepted_for(tenant, service, identity.key_id),
        "token_hash": hash_of(token),
        "account_id": identity.account_id,
        "correlation_id": correlation_id,
        "jti": identity.jti,
        "ttl": ttl,
        "guard": min((identity.replayable_until or 0.0) + CLOCK_MARGIN, LATEST.timestamp()),
    }


def why_not(
    tenant: TenantView, service: ServiceView, key_id: int | None, jti: str | None = None
) -> Exception:
    """Return the precise reason why a proof was not accepted."""
    if jti is not None and _seen(tenant, service, key_id, jti):
        return Refused(Refusal.REPLAYED, "jti")
    if key_id is not None and _out_of_time(tenant, key_id):
        return Refused(Refusal.KEY_NOT_IN_FORCE)
    return Stale(tenant)


def _seen(tenant: TenantView, service: ServiceView, key_id: int | None, jti: str) -> bool:
    same = {"jti": jti, "key": key_id}
    if key_id is None:
        same["service"] = service.id
    return SessionToken.objects.for_tenant(tenant.id).filter(**same).exists()


def _out_of_time(tenant: TenantView, key_id: int) -> bool:
    late, early = Q(not_after__lte=Now()), Q(not_before__gt=Now())
    return Key.objects.for_tenant(tenant.id).filter(late | early, pk=key_id).exists()


def accepted_for(tenant: TenantView, service: ServiceView, key_id: int | None) -> dict[str, Any]:
    """Return the parameters of `accepted_by`."""
    return {"tenant": tenant.id, "version": tenant.version, "service": service.id, "key": key_id}


def accepted_by(given: str = dialect.PARAMETER) -> str:
    """Return the condition under which a proof is accepted: its rows `t`, `s` and perhaps `k` are in force.

    What it is `given` (`accepted_for`) are parameters, or the columns of a row.
    """
    now = dialect.now()
    tenant, version, service, key = (given.format(name) for name in ("tenant", "version", "service", "key"))
    return f"""tenants_tenant t ON t.id = {tenant} AND t.enabled AND t.version = {version}
  JOIN tenants_service s ON s.id = {service} AND s.tenant_id = t.id AND s.enabled
  LEFT JOIN tenants_key k ON k.id = {key} AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {now})
   AND (k.not_after IS NULL OR k.not_after > {now})
 WHERE ({key} IS NULL OR k.id IS NOT NULL)"""


_GIVEN = {
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
def _storing(spent: bool) -> str:
    # Ordered, so that two statements that meet in the same assertions wait for each other one way round.
    now, expires = dialect.now(), dialect.after("ttl", "g.{}")
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, jti,
        created_at, expires_at, redeemed_at, dead_after)
SELECT t.id, s.id, k.id, g.token_hash, g.account_id, g.correlation_id, g.jti,
       {now}, {expires}, {now if spent else "NULL"}, {dialect.later(expires, dialect.moment("guard", "g.{}"))}
  FROM {dialect.given(**_GIVEN)} AS g
  JOIN {accepted_by("g.{}")}
 ORDER BY g.jti, t.id, s.id
    ON CONFLICT DO NOTHING
RETURNING token_hash{", created_at" if spent else ""}
"""  # noqa: S608 - put together from constants
