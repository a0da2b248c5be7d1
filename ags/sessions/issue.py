"""Accepting a proof: one statement that decides, and stores it under a session token, at once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db.models import Q
from django.db.models.functions import Now

from ags.sessions import dialect
from ags.sessions.denial import Stale
from ags.sessions.device import Proof
from ags.sessions.models import SessionToken
from ags.sessions.standing import KEY_STATES
from ags.sessions.tokens import hash_of, new_token
from providers.contract import Identity, Refusal, Refused
from tenants.models import Key
from tenants.snapshot import ServiceView, TenantView

_LATEST = datetime(9999, 12, 31, tzinfo=UTC).timestamp()

CLOCK_MARGIN = 60.0
"""Seconds by which the clock of a process may be behind the database's before a replay could pass."""


def issue(tenant: TenantView, service: ServiceView, identity: Identity, correlation_id: str) -> str:
    """Store a new session token and return it; it is committed when this returns. Raises as `accept`."""
    token = new_token()
    accept(tenant, service, identity, token, correlation_id, ttl=service.settings["session_token_ttl"])
    return token


def accept(
    tenant: TenantView,
    service: ServiceView,
    identity: Identity,
    token: str,
    correlation_id: str,
    *,
    ttl: int,
    spent: bool = False,
) -> Proof:
    """Store the proof under a session token, which is good for `ttl` seconds, or spent from the beginning.

    Raises `Refused(REPLAYED)` when the proof was accepted before, `Refused(KEY_NOT_IN_FORCE)` when the key is
    too early or too late by the database's clock, `Stale` when tenant, service or key are no longer what was
    read, and Django's database errors.
    """
    stored = dialect.one(
        _storing(identity.key_id is not None, spent),
        **accepted_for(tenant, service, identity.key_id),
        token_hash=hash_of(token),
        account_id=identity.account_id,
        correlation_id=correlation_id,
        jti=identity.jti,
        ttl=ttl,
        guard=min((identity.replayable_until or 0.0) + CLOCK_MARGIN, _LATEST),
    )
    if stored is None:
        raise why_not(tenant, service, identity.key_id, identity.jti)
    return Proof(*stored)


def why_not(
    tenant: TenantView, service: ServiceView, key_id: int | None, jti: str | None = None
) -> Exception:
    """Return the precise reason why a proof was not accepted."""
    if jti is not None and _seen(tenant, service, key_id, jti):
        return Refused(Refusal.REPLAYED, "jti")
    if key_id is not None and _out_of_time(tenant, key_id):
        return Refused(Refusal.KEY_NOT_IN_FORCE)
    return Stale()


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


def accepted_by(has_key: bool) -> tuple[str, str]:
    """Return the rows that must be there for a proof to be accepted, and what names its key among them."""
    now, with_key = dialect.now(), ""
    if has_key:
        with_key = f"""
  JOIN tenants_key k ON k.id = %(key)s AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {now})
   AND (k.not_after IS NULL OR k.not_after > {now})"""
    rows = f"""tenants_tenant t
  JOIN tenants_service s ON s.id = %(service)s AND s.tenant_id = t.id AND s.enabled{with_key}
 WHERE t.id = %(tenant)s AND t.enabled AND t.version = %(version)s"""
    return rows, "k.id" if has_key else "NULL"


@dialect.written_once
def _storing(has_key: bool, spent: bool) -> str:
    now, expires = dialect.now(), dialect.after("ttl")
    rows, key = accepted_by(has_key)
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, jti,
        created_at, expires_at, redeemed_at, dead_after)
SELECT t.id, s.id, {key}, %(token_hash)s, %(account_id)s, %(correlation_id)s, %(jti)s,
       {now}, {expires}, {now if spent else "NULL"}, {dialect.later(expires, dialect.moment("guard"))}
  FROM {rows}
    ON CONFLICT DO NOTHING
RETURNING account_id, service_id, key_id, created_at
"""  # noqa: S608 - put together from constants
