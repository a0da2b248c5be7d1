"""Redeeming a session token: one transaction, in which one UPDATE decides."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from ags.sessions import dialect, events, standing
from ags.sessions.client_tokens import SignOn
from ags.sessions.denial import Denial, Denied, Fault, Stale
from ags.sessions.models import AccountStatus, Device, DeviceStatus, SecurityEvent
from ags.sessions.tokens import hashes_of
from tenants.snapshot import ServiceView, TenantView

# Statements are put together from constants.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device that signs on for the first time, with whatever it tells of itself."""

    information: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that has signed on before."""

    client_id: str


@dataclass(frozen=True, slots=True)
class _Spent:
    """What was redeemed."""

    account_id: str
    service_id: int
    key_id: int | None
    created_at: Any


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
            spent = _spend(tenant, service, token)
            if isinstance(device, NewDevice):
                return _enrol(tenant, spent, device, correlation_id)
            return _return(tenant, spent, device, correlation_id)
    except _NotSpent:
        raise _why_not(tenant, service, token, correlation_id) from None


class _NotSpent(Exception):
    """The deciding statement found nothing to spend."""


def _spend(tenant: TenantView, service: ServiceView, token: str) -> _Spent:
    hashes = dict(enumerate(hashes_of(token)))
    statement = f"""
UPDATE ags_sessions_sessiontoken AS st
   SET redeemed_at = {dialect.now()}
 WHERE st.tenant_id = %(tenant)s AND st.token_hash IN ({_placeholders(len(hashes))})
   AND st.service_id = %(service)s
   AND st.redeemed_at IS NULL AND st.revoked_at IS NULL AND st.expires_at > {dialect.now()}
   AND EXISTS (SELECT 1 FROM {standing.OF_SESSION_TOKEN}
                WHERE t.id = st.tenant_id AND t.version = %(version)s
                  AND ({standing.SESSION_TOKEN}) IS NULL)
RETURNING account_id, service_id, key_id, created_at
"""
    row = dialect.one(
        statement,
        tenant=tenant.id,
        service=service.id,
        version=tenant.version,
        **{f"hash_{place}": value for place, value in hashes.items()},
    )
    if row is None:
        raise _NotSpent
    return _Spent(*row)


def _enrol(tenant: TenantView, spent: _Spent, device: NewDevice, correlation_id: str) -> SignOn:
    """Make the device, if the account has room for it."""
    account = dialect.one(
        f"""
INSERT INTO ags_sessions_account (tenant_id, account_id, status, created_at)
VALUES (%(tenant)s, %(account)s, '{AccountStatus.ACTIVE}', {dialect.now()})
    ON CONFLICT (tenant_id, account_id) DO UPDATE SET status = ags_sessions_account.status
RETURNING id, status
""",
        tenant=tenant.id,
        account=spent.account_id,
    )
    # From here on this transaction holds the account: what is counted next stays so.
    if account[1] != AccountStatus.ACTIVE:
        raise Denied(_ACCOUNT_FAULTS[account[1]])
    columns = _columns()
    row = dialect.one(
        f"""
INSERT INTO ags_sessions_device
       (tenant_id, account_id, client_id, status, information, created_at, {", ".join(columns)})
SELECT t.id, %(account)s, %(client_id)s, '{DeviceStatus.ENABLED}', {dialect.json("information")},
       {dialect.now()}, {", ".join(columns.values())}
  FROM tenants_tenant t
 WHERE t.id = %(tenant)s
   AND (t.device_limit IS NULL
        OR t.device_limit > (SELECT count(*) FROM ags_sessions_device d
                              WHERE d.tenant_id = t.id AND d.account_id = %(account)s
                                AND d.status = '{DeviceStatus.ENABLED}'))
RETURNING {_returned()}
""",
        tenant=tenant.id,
        account=account[0],
        client_id=secrets.token_hex(16),
        information=json.dumps(device.information),
        **_values(tenant, spent, correlation_id),
    )
    if row is None:
        raise Denied(Denial.DEVICE_LIMIT_REACHED)
    return SignOn(spent.account_id, *row)


def _return(tenant: TenantView, spent: _Spent, device: KnownDevice, correlation_id: str) -> SignOn:
    """Give a device that is known a new sign-on in the place of its last one."""
    row = dialect.one(
        f"""
UPDATE ags_sessions_device
   SET {", ".join(f"{name} = {value}" for name, value in _columns().items())}, ended_at = NULL
 WHERE tenant_id = %(tenant)s AND client_id = %(client_id)s AND status = '{DeviceStatus.ENABLED}'
   AND account_id = (SELECT a.id FROM ags_sessions_account a
                      WHERE a.tenant_id = %(tenant)s AND a.account_id = %(account)s
                        AND a.status = '{AccountStatus.ACTIVE}')
RETURNING {_returned()}
""",
        tenant=tenant.id,
        account=spent.account_id,
        client_id=device.client_id,
        **_values(tenant, spent, correlation_id),
    )
    if row is None:
        raise Denied(_fault_of_device(tenant, spent, device.client_id))
    return SignOn(spent.account_id, *row)


_ACCOUNT_FAULTS = {
    AccountStatus.SUSPENDED.value: Fault.ACCOUNT_SUSPENDED,
    AccountStatus.CANCELLED.value: Fault.ACCOUNT_CANCELLED,
}


def _fault_of_device(tenant: TenantView, spent: _Spent, client_id: str) -> Denial | Fault:
    """Say which rule kept a known device out. A device of another account is unknown to this one."""
    device = (
        Device.objects.for_tenant(tenant.id)
        .filter(client_id=client_id, account__account_id=spent.account_id)
        .values_list("status", "account__status")
        .first()
    )
    if device is None or device[0] == DeviceStatus.DELETED:
        return Denial.DEVICE_UNKNOWN
    return _ACCOUNT_FAULTS.get(device[1], Fault.DEVICE_DISABLED)


def _why_not(tenant: TenantView, service: ServiceView, token: str, correlation_id: str) -> Exception:
    """Return the precise reason why the token could not be spent. A spent one is a security event."""
    hashes = dict(enumerate(hashes_of(token)))
    row = dialect.one(
        f"""
SELECT st.id, st.account_id, st.redeemed_at IS NOT NULL, st.revoked_at IS NOT NULL,
       st.expires_at <= {dialect.now()}, st.service_id, {standing.SESSION_TOKEN}
  FROM ags_sessions_sessiontoken st CROSS JOIN {standing.OF_SESSION_TOKEN}
 WHERE t.id = st.tenant_id AND st.tenant_id = %(tenant)s AND st.token_hash IN ({_placeholders(len(hashes))})
""",
        tenant=tenant.id,
        **{f"hash_{place}": value for place, value in hashes.items()},
    )
    if row is None:
        return Denied(Denial.TOKEN_UNKNOWN)
    number, account_id, is_spent, is_revoked, is_expired, service_id, fault = row
    if is_spent:
        kind = SecurityEvent.Kind.SESSION_TOKEN_REUSED
        events.record(tenant.id, kind, str(number), account_id, correlation_id)
        return Denied(Denial.TOKEN_SPENT)
    if is_revoked:
        return Denied(Fault.REVOKED)
    if is_expired:
        return Denied(Denial.TOKEN_EXPIRED)
    if service_id != service.id:
        return Denied(Denial.TOKEN_UNKNOWN)
    if fault is not None:
        return Denied(Fault(fault))
    return Stale()


def _columns() -> dict[str, str]:
    """The columns of a sign-on, and what a new one has in them."""
    fixed = dialect.after("sign_on_ttl")
    return {
        "service_id": "%(service)s",
        "key_id": "%(key)s",
        "sign_on": "%(sign_on)s",
        "correlation_id": "%(correlation)s",
        "proven_at": "%(proven_at)s",
        "signed_on_at": dialect.now(),
        "fixed_expires_at": fixed,
        "end_reason": "''",
        "generation": "0",
        "refresh_expires_at": dialect.earlier(dialect.after("refresh_ttl"), fixed),
        "used": dialect.json("used"),
    }


def _values(tenant: TenantView, spent: _Spent, correlation_id: str) -> dict[str, Any]:
    return {
        "service": spent.service_id,
        "key": spent.key_id,
        "sign_on": secrets.token_hex(16),
        "correlation": correlation_id,
        "proven_at": spent.created_at,
        "sign_on_ttl": tenant.rules.sign_on_ttl,
        "refresh_ttl": tenant.rules.refresh_token_ttl,
        "used": "[]",
    }


def _returned() -> str:
    ends = dialect.epoch("refresh_expires_at"), dialect.epoch("fixed_expires_at")
    return f"client_id, sign_on, generation, {', '.join(ends)}"


def _placeholders(number: int) -> str:
    return ", ".join(f"%(hash_{place})s" for place in range(number))
