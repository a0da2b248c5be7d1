"""Redeeming a session token: one transaction, in which one UPDATE decides."""

from __future__ import annotations

from django.db import transaction

from ags.sessions import dialect, once, standing
from ags.sessions.client_tokens import SignOn
from ags.sessions.device import KnownDevice, NewDevice, Proof, admit
from ags.sessions.models import SecurityEvent
from ags.sessions.tokens import hashes_of
from tenants.view import ServiceView, TenantView

# Statements are put together from constants.
# ruff: noqa: S608


def redeem(
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
    try:
        with transaction.atomic():
            return admit(tenant, _spend(tenant, service, token), device, correlation_id)
    except _NotSpent:
        raise _why_not(tenant, service, token, correlation_id) from None


class _NotSpent(Exception):
    """The deciding statement found nothing to spend."""


def _spend(tenant: TenantView, service: ServiceView, token: str) -> Proof:
    hashes = hashes_of(token)
    row = dialect.one(
        _spending(len(hashes)),
        tenant=tenant.id,
        service=service.id,
        version=tenant.version,
        **dialect.numbered("hash", hashes),
    )
    if row is None:
        raise _NotSpent
    return Proof(*row)


def _why_not(tenant: TenantView, service: ServiceView, token: str, correlation_id: str) -> Exception:
    hashes = hashes_of(token)
    row = dialect.one(_looking(len(hashes)), tenant=tenant.id, **dialect.numbered("hash", hashes))
    return once.why_not(tenant, service, row, SecurityEvent.Kind.SESSION_TOKEN_REUSED, correlation_id)


@dialect.written_once
def _spending(hashes: int) -> str:
    return f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {dialect.now()}
 WHERE st.tenant_id = %(tenant)s AND st.token_hash IN ({dialect.listed("hash", hashes)})
   AND st.service_id = %(service)s
   AND st.redeemed_at IS NULL AND st.revoked_at IS NULL AND st.expires_at > {dialect.now()}
   AND EXISTS (SELECT 1 FROM {standing.OF_SESSION_TOKEN}
                WHERE t.id = st.tenant_id AND t.version = %(version)s
                  AND ({standing.SESSION_TOKEN}) IS NULL)
RETURNING account_id, service_id, key_id, created_at
"""


@dialect.written_once
def _looking(hashes: int) -> str:
    return f"""
SELECT st.id, st.account_id, st.redeemed_at IS NOT NULL, st.revoked_at IS NOT NULL,
       st.expires_at <= {dialect.now()}, st.service_id, {standing.SESSION_TOKEN}
  FROM ags_sessions_sessiontoken st CROSS JOIN {standing.OF_SESSION_TOKEN}
 WHERE t.id = st.tenant_id AND st.tenant_id = %(tenant)s
   AND st.token_hash IN ({dialect.listed("hash", hashes)})
"""
