"""Issuing a session token: one statement that decides and stores at once."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from ags.sessions import dialect
from ags.sessions.denial import Stale
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
    """Store a new session token and return it; when this returns, the row is committed.

    Raises `Refused(REPLAYED)` when the proof was accepted before, `Refused(KEY_NOT_IN_FORCE)` when the key is
    too early or too late by the database's clock, `Stale` when tenant, service or key are no longer what was
    read, and Django's database errors.
    """
    token = new_token()
    row = {
        "tenant": tenant.id,
        "version": tenant.version,
        "service": service.id,
        "key": identity.key_id,
        "token_hash": hash_of(token),
        "account_id": identity.account_id,
        "correlation_id": correlation_id,
        "jti": identity.jti,
        "ttl": service.settings["session_token_ttl"],
        "guard": min((identity.replayable_until or 0.0) + CLOCK_MARGIN, _LATEST),
    }
    statement = _statement(identity.key_id is not None)
    with connection.cursor() as cursor:
        cursor.execute(statement, row)
        stored = cursor.fetchall()
    if stored:
        return token
    if identity.jti is not None and _seen(tenant, service, identity):
        raise Refused(Refusal.REPLAYED, "jti")
    if identity.key_id is not None and _out_of_time(tenant, identity.key_id):
        raise Refused(Refusal.KEY_NOT_IN_FORCE)
    raise Stale


def _seen(tenant: TenantView, service: ServiceView, identity: Identity) -> bool:
    same = {"jti": identity.jti, "key": identity.key_id}
    if identity.key_id is None:
        same["service"] = service.id
    return SessionToken.objects.for_tenant(tenant.id).filter(**same).exists()


def _out_of_time(tenant: TenantView, key_id: int) -> bool:
    late, early = Q(not_after__lte=Now()), Q(not_before__gt=Now())
    return Key.objects.for_tenant(tenant.id).filter(late | early, pk=key_id).exists()


@dialect.written_once
def _statement(has_key: bool) -> str:
    now, expires = dialect.now(), dialect.after("ttl")
    key, with_key = "NULL", ""
    if has_key:
        key = "k.id"
        with_key = f"""
  JOIN tenants_key k ON k.id = %(key)s AND k.tenant_id = t.id AND k.state IN ({KEY_STATES})
   AND (k.not_before IS NULL OR k.not_before <= {now})
   AND (k.not_after IS NULL OR k.not_after > {now})"""
    return f"""
INSERT INTO ags_sessions_sessiontoken
       (tenant_id, service_id, key_id, token_hash, account_id, correlation_id, jti,
        created_at, expires_at, dead_after)
SELECT t.id, s.id, {key}, %(token_hash)s, %(account_id)s, %(correlation_id)s, %(jti)s,
       {now}, {expires}, {dialect.later(expires, dialect.moment("guard"))}
  FROM tenants_tenant t
  JOIN tenants_service s ON s.id = %(service)s AND s.tenant_id = t.id AND s.enabled{with_key}
 WHERE t.id = %(tenant)s AND t.enabled AND t.version = %(version)s
    ON CONFLICT DO NOTHING
RETURNING id
"""  # noqa: S608 - put together from constants
