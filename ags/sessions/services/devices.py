"""Signing devices on: a new one is registered if its account has room, a known one gets a new sign-on."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from ags.database import Transaction
from ags.sessions.exceptions import InvalidReason, RejectReason, TokenRejected
from ags.sessions.models import AccountStatus, DeviceStatus
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.jwt import SignOn
from tenants.tenant_snapshot import TenantSnapshot

# Statements are put together from constants.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class Proof:
    """What a sign-on rests on: whose account, proven by which service and key, and when it was accepted.

    `row_id`: the row that was consumed for it.
    """

    account_id: str = field(repr=False)
    service_id: int
    key_id: int | None
    accepted_at: Any
    row_id: int


@dataclass(frozen=True, slots=True)
class NewDevice:
    """A device that signs on for the first time, with whatever it tells of itself."""

    information: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A device that has signed on before."""

    client_id: str


@dataclass(frozen=True, slots=True)
class SignOnRequest:
    """A device that wants to sign on."""

    tenant: TenantSnapshot
    device: NewDevice | KnownDevice
    correlation_id: str


@dataclass(frozen=True, slots=True)
class _Proven:
    """A request with its proof."""

    request: SignOnRequest
    proof: Proof

    @property
    def account(self) -> tuple[str, str]:
        """The tenant and the account."""
        return self.request.tenant.id, self.proof.account_id


Outcome = SignOn | TokenRejected


def signed_on(outcome: Outcome) -> SignOn:
    """Return the sign-on. Raises `TokenRejected` where there is none."""
    if isinstance(outcome, TokenRejected):
        raise outcome
    return outcome


async def sign_on_devices(
    transaction: Transaction,
    requests: Sequence[SignOnRequest],
    proofs: Sequence[Proof | None],
    restore: str,
) -> list[Outcome | None]:
    """Sign devices on, within the transaction that consumes their proofs; None for a device without one.

    The proof of a device that is denied is as if it had not been presented: `restore`, a statement without
    its WHERE, is executed for the row that was consumed for it.
    """
    new: dict[int, _Proven] = {}
    known: list[tuple[str, int, _Proven]] = []
    for number, (request, proof) in enumerate(zip(requests, proofs, strict=True)):
        if proof is None:
            continue
        if isinstance(request.device, KnownDevice):
            known.append((request.device.client_id, number, _Proven(request, proof)))
        else:
            new[number] = _Proven(request, proof)
    outcomes = await _register(transaction, new) if new else {}
    # In order, so that two transactions that meet in the same devices wait for each other one way round.
    for client_id, number, proven in sorted(known, key=itemgetter(0)):
        outcomes[number] = await _sign_on_known(transaction, proven, client_id)
    denied = [
        {"row_id": proof.row_id}
        for number, proof in enumerate(proofs)
        if proof is not None and isinstance(outcomes[number], TokenRejected)
    ]
    if denied:
        await transaction.fetch_all(_restore_sql(restore), sql.values_params(denied))
    return [outcomes.get(number) for number in range(len(requests))]


async def _register(transaction: Transaction, new: Mapping[int, _Proven]) -> dict[int, Outcome]:
    """Create the devices whose accounts have room for them."""
    accounts = await _lock_accounts(transaction, {proven.account for proven in new.values()})
    # From here on this transaction holds the accounts: what is counted next stays so.
    others = Counter[tuple[str, str]]()
    outcomes: dict[int, Outcome] = {}
    rows: dict[int, dict[str, Any]] = {}
    for number, proven in new.items():
        account, status = accounts[proven.account]
        if status != AccountStatus.ACTIVE:
            outcomes[number] = TokenRejected(_ACCOUNT_INVALID_REASONS[status])
            continue
        rows[number] = {
            **_row(proven, secrets.token_hex(16)),
            "account": account,
            "information": proven.request.device.information,  # type: ignore[union-attr] # a new one has it
            "others": others[proven.account],
        }
        others[proven.account] += 1
    if rows:
        stored = await transaction.fetch_all(_register_sql(), sql.values_params([*rows.values()]))
        ends = {client_id: rest for client_id, *rest in stored}
        for number, row in rows.items():
            its = ends.get(row["device"])
            outcomes[number] = (
                _sign_on(new[number], row, its) if its else TokenRejected(RejectReason.DEVICE_LIMIT_REACHED)
            )
    return outcomes


async def _lock_accounts(
    transaction: Transaction, accounts: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[int, str]]:
    """Create the accounts that do not exist, and lock all. Return the number and the status of each."""
    rows = [{"tenant": tenant_id, "account": account_id} for tenant_id, account_id in accounts]
    locked = await transaction.fetch_all(_lock_accounts_sql(), sql.values_params(rows))
    return {(tenant_id, account_id): (number, status) for tenant_id, account_id, number, status in locked}


async def _sign_on_known(transaction: Transaction, proven: _Proven, client_id: str) -> Outcome:
    """Give a device that is known a new sign-on in the place of its last one."""
    row = {**_row(proven, client_id), "account": proven.proof.account_id}
    stored = await transaction.fetch_all(_sign_on_known_sql(), sql.values_params([row]))
    if not stored:
        return TokenRejected(await _explain_rejection(transaction, proven, client_id))
    return _sign_on(proven, row, stored[0][1:])


_ACCOUNT_INVALID_REASONS = {
    AccountStatus.SUSPENDED.value: InvalidReason.ACCOUNT_SUSPENDED,
    AccountStatus.CANCELLED.value: InvalidReason.ACCOUNT_CANCELLED,
}


async def _explain_rejection(
    transaction: Transaction, proven: _Proven, client_id: str
) -> RejectReason | InvalidReason:
    """Return which rule kept a known device out. A device of another account is unknown to this one."""
    tenant_id, account_id = proven.account
    params = {"tenant": tenant_id, "account": account_id, "device": client_id}
    rows = await transaction.fetch_all(_STATUS_SQL, params)
    if not rows or rows[0][0] == DeviceStatus.DELETED:
        return RejectReason.DEVICE_UNKNOWN
    return _ACCOUNT_INVALID_REASONS.get(rows[0][1], InvalidReason.DEVICE_DISABLED)


_STATUS_SQL = """
SELECT d.status, a.status
  FROM ags_sessions_device d
  JOIN ags_sessions_account a ON a.tenant_id = d.tenant_id AND a.id = d.account_id
 WHERE d.tenant_id = %(tenant)s AND d.client_id = %(device)s AND a.account_id = %(account)s
"""


@sql.cached_sql
def _restore_sql(restore: str) -> str:
    return f"{restore} WHERE id IN (SELECT g.row_id FROM {sql.values_table(row_id='bigint')} AS g)"


@sql.cached_sql
def _lock_accounts_sql() -> str:
    # In order, as devices are.
    return f"""
INSERT INTO ags_sessions_account (tenant_id, account_id, status, created_at)
SELECT g.tenant, g.account, '{AccountStatus.ACTIVE}', {sql.now()}
  FROM {sql.values_table(tenant="text", account="text")} AS g
 WHERE TRUE
 ORDER BY g.tenant, g.account
    ON CONFLICT (tenant_id, account_id) DO UPDATE SET status = ags_sessions_account.status
RETURNING tenant_id, account_id, id, status
"""


@sql.cached_sql
def _register_sql() -> str:
    columns = _sign_on_columns()
    return f"""
INSERT INTO ags_sessions_device
       (tenant_id, account_id, client_id, status, information, created_at, {", ".join(columns)})
SELECT t.id, g.account, g.device, '{DeviceStatus.ENABLED}', g.information,
       {sql.now()}, {", ".join(columns.values())}
  FROM {sql.values_table(**_COLUMNS, account="bigint", information="jsonb", others="integer")} AS g
  JOIN tenants_tenant t ON t.id = g.tenant
 WHERE t.device_limit IS NULL
    OR t.device_limit > g.others + (SELECT count(*) FROM ags_sessions_device d
                                     WHERE d.tenant_id = g.tenant AND d.account_id = g.account
                                       AND d.status = '{DeviceStatus.ENABLED}')
RETURNING {_returned_columns()}
"""


@sql.cached_sql
def _sign_on_known_sql() -> str:
    columns = ", ".join(f"{name} = {value}" for name, value in _sign_on_columns().items())
    return f"""
UPDATE ags_sessions_device AS d
   SET {columns}, ended_at = NULL
  FROM {sql.values_table(**_COLUMNS, account="text")} AS g
 WHERE d.tenant_id = g.tenant AND d.client_id = g.device AND d.status = '{DeviceStatus.ENABLED}'
   AND d.account_id = (SELECT a.id FROM ags_sessions_account a
                        WHERE a.tenant_id = g.tenant AND a.account_id = g.account
                          AND a.status = '{AccountStatus.ACTIVE}')
RETURNING {_returned_columns()}
"""


_COLUMNS = {
    "tenant": "text",
    "device": "text",
    "service": "bigint",
    "key": "bigint",
    "new_sign_on": "text",
    "correlation": "text",
    "proven": "timestamptz",
    "sign_on_ttl": "integer",
    "refresh_ttl": "integer",
}


def _row(proven: _Proven, client_id: str) -> dict[str, Any]:
    return {
        "tenant": proven.request.tenant.id,
        "device": client_id,
        "service": proven.proof.service_id,
        "key": proven.proof.key_id,
        "new_sign_on": secrets.token_hex(16),
        "correlation": proven.request.correlation_id,
        "proven": proven.proof.accepted_at,
        "sign_on_ttl": proven.request.tenant.rules.sign_on_ttl,
        "refresh_ttl": proven.request.tenant.rules.refresh_token_ttl,
    }


def _sign_on_columns() -> dict[str, str]:
    """The columns of a sign-on, and what a new one has in them."""
    fixed = sql.now_plus_seconds("g.sign_on_ttl")
    return {
        "service_id": "g.service",
        "key_id": "g.key",
        "sign_on": "g.new_sign_on",
        "correlation_id": "g.correlation",
        "proven_at": "g.proven",
        "signed_on_at": sql.now(),
        "fixed_expires_at": fixed,
        "end_reason": "''",
        "generation": "0",
        "refresh_expires_at": sql.least(sql.now_plus_seconds("g.refresh_ttl"), fixed),
        "used": sql.json("'[]'"),
    }


def _returned_columns() -> str:
    return f"client_id, {sql.to_epoch('refresh_expires_at')}, {sql.to_epoch('fixed_expires_at')}"


def _sign_on(proven: _Proven, row: Mapping[str, Any], ends: Sequence[float]) -> SignOn:
    return SignOn(proven.proof.account_id, row["device"], row["new_sign_on"], 0, *ends)
