"""The device of a sign-on: a new one is enrolled if its account has room, a known one returns."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from ags.sessions import dialect
from ags.sessions.client_tokens import SignOn
from ags.sessions.denial import Denial, Denied, Fault
from ags.sessions.models import AccountStatus, Device, DeviceStatus
from tenants.view import TenantView

# Statements are put together from constants.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class Proof:
    """What a sign-on rests on: whose account, proven by which service and key, and when it was accepted."""

    account_id: str = field(repr=False)
    service_id: int
    key_id: int | None
    accepted_at: Any


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device that signs on for the first time, with whatever it tells of itself."""

    information: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that has signed on before."""

    client_id: str


def admit(tenant: TenantView, proof: Proof, device: NewDevice | KnownDevice, correlation_id: str) -> SignOn:
    """Sign the device on, within the transaction that accepts the proof. Raises `Denied`."""
    if isinstance(device, NewDevice):
        return _enrol(tenant, proof, device, correlation_id)
    return _return(tenant, proof, device, correlation_id)


def _enrol(tenant: TenantView, proof: Proof, device: NewDevice, correlation_id: str) -> SignOn:
    """Make the device, if the account has room for it."""
    account = dialect.one(_hold_account(), tenant=tenant.id, account=proof.account_id)
    # From here on this transaction holds the account: what is counted next stays so.
    if account[1] != AccountStatus.ACTIVE:
        raise Denied(_ACCOUNT_FAULTS[account[1]])
    row = dialect.one(
        _make_device(),
        tenant=tenant.id,
        account=account[0],
        client_id=secrets.token_hex(16),
        information=json.dumps(device.information),
        **_values(tenant, proof, correlation_id),
    )
    if row is None:
        raise Denied(Denial.DEVICE_LIMIT_REACHED)
    return SignOn(proof.account_id, *row)


def _return(tenant: TenantView, proof: Proof, device: KnownDevice, correlation_id: str) -> SignOn:
    """Give a device that is known a new sign-on in the place of its last one."""
    row = dialect.one(
        _renew_device(),
        tenant=tenant.id,
        account=proof.account_id,
        client_id=device.client_id,
        **_values(tenant, proof, correlation_id),
    )
    if row is None:
        raise Denied(_fault_of_device(tenant, proof, device.client_id))
    return SignOn(proof.account_id, *row)


_ACCOUNT_FAULTS = {
    AccountStatus.SUSPENDED.value: Fault.ACCOUNT_SUSPENDED,
    AccountStatus.CANCELLED.value: Fault.ACCOUNT_CANCELLED,
}


def _fault_of_device(tenant: TenantView, proof: Proof, client_id: str) -> Denial | Fault:
    """Say which rule kept a known device out. A device of another account is unknown to this one."""
    device = (
        Device.objects.for_tenant(tenant.id)
        .filter(client_id=client_id, account__account_id=proof.account_id)
        .values_list("status", "account__status")
        .first()
    )
    if device is None or device[0] == DeviceStatus.DELETED:
        return Denial.DEVICE_UNKNOWN
    return _ACCOUNT_FAULTS.get(device[1], Fault.DEVICE_DISABLED)


@dialect.written_once
def _hold_account() -> str:
    return f"""
INSERT INTO ags_sessions_account (tenant_id, account_id, status, created_at)
VALUES (%(tenant)s, %(account)s, '{AccountStatus.ACTIVE}', {dialect.now()})
    ON CONFLICT (tenant_id, account_id) DO UPDATE SET status = ags_sessions_account.status
RETURNING id, status
"""


@dialect.written_once
def _make_device() -> str:
    columns = _columns()
    return f"""
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
"""


@dialect.written_once
def _renew_device() -> str:
    return f"""
UPDATE ags_sessions_device
   SET {", ".join(f"{name} = {value}" for name, value in _columns().items())}, ended_at = NULL
 WHERE tenant_id = %(tenant)s AND client_id = %(client_id)s AND status = '{DeviceStatus.ENABLED}'
   AND account_id = (SELECT a.id FROM ags_sessions_account a
                      WHERE a.tenant_id = %(tenant)s AND a.account_id = %(account)s
                        AND a.status = '{AccountStatus.ACTIVE}')
RETURNING {_returned()}
"""


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


def _values(tenant: TenantView, proof: Proof, correlation_id: str) -> dict[str, Any]:
    return {
        "service": proof.service_id,
        "key": proof.key_id,
        "sign_on": secrets.token_hex(16),
        "correlation": correlation_id,
        "proven_at": proof.accepted_at,
        "sign_on_ttl": tenant.rules.sign_on_ttl,
        "refresh_ttl": tenant.rules.refresh_token_ttl,
        "used": "[]",
    }


def _returned() -> str:
    ends = dialect.epoch("refresh_expires_at"), dialect.epoch("fixed_expires_at")
    return f"client_id, sign_on, generation, {', '.join(ends)}"
