"""Sign-ons of devices: new devices are registered within the device limit, known ones get a new sign-on."""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any

from ags.database import Transaction
from ags.sessions.exceptions import InvalidReason, RejectReason, TokenRejected
from ags.sessions.models import AccountStatus, DeviceStatus
from ags.sessions.request_context import RequestContext
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.client_tokens import SignOn
from tenants.tenant_snapshot import TenantSnapshot

# Statements are built from constants.
# ruff: noqa: S608


@dataclass(frozen=True, slots=True)
class Proof:
    """An accepted proof of an account. `row_id`: the session token or account choice that was consumed."""

    account_id: str = field(repr=False)
    service_id: int
    key_id: int | None
    accepted_at: Any
    row_id: int


@dataclass(frozen=True, slots=True)
class NewDevice:
    """`information`: the JSON object that its app sent. `client_id`: what it will be registered with."""

    information: dict[str, Any] = field(repr=False)
    client_id: str = field(default_factory=partial(secrets.token_hex, 16))


@dataclass(frozen=True, slots=True)
class KnownDevice:
    client_id: str


@dataclass(frozen=True, slots=True)
class SignOnRequest:
    tenant: TenantSnapshot
    device: NewDevice | KnownDevice
    context: RequestContext
    proof: Proof
    username_hash: bytes | None = None


Outcome = SignOn | TokenRejected


async def sign_on_devices(
    transaction: Transaction, requests: Sequence[SignOnRequest | None], restore: str
) -> list[Outcome | None]:
    """Sign devices on, in the transaction that consumes their proofs. The outcome of None is None.

    If a device is rejected, its proof is restored: `restore`, a statement without WHERE clause, is executed
    for the consumed row.
    """
    new: dict[int, SignOnRequest] = {}
    known: list[tuple[str, int, SignOnRequest]] = []
    for index, request in enumerate(requests):
        if request is None:
            continue
        if isinstance(request.device, KnownDevice):
            known.append((request.device.client_id, index, request))
        else:
            new[index] = request
    outcomes = await _register(transaction, new) if new else {}
    # Locks devices in the order of the client ID, so that concurrent transactions cannot deadlock.
    for client_id, index, request in sorted(known, key=itemgetter(0)):
        outcomes[index] = await _sign_on_known(transaction, request, client_id)
    rejected = [
        {"row_id": request.proof.row_id}
        for index, request in enumerate(requests)
        if request is not None and isinstance(outcomes[index], TokenRejected)
    ]
    for request in requests:
        if request is not None:
            request.context.account_id = request.proof.account_id
    if rejected:
        await transaction.fetch_all(_restore_sql(restore), sql.values_params(rejected))
    return [outcomes.get(index) for index in range(len(requests))]


async def _register(transaction: Transaction, new: Mapping[int, SignOnRequest]) -> dict[int, Outcome]:
    keys = {index: (request.tenant.id, request.proof.account_id) for index, request in new.items()}
    key_rows = [{"tenant": tenant_id, "account": account_id} for tenant_id, account_id in set(keys.values())]
    locked = await transaction.fetch_all(_lock_accounts_sql(), sql.values_params(key_rows))
    # The accounts stay locked until the commit, so the number of their devices cannot change.
    accounts = {(tenant_id, account_id): (pk, status) for tenant_id, account_id, pk, status in locked}
    new_devices = Counter[tuple[str, str]]()
    outcomes: dict[int, Outcome] = {}
    rows: dict[int, dict[str, Any]] = {}
    for index, request in new.items():
        account_pk, status = accounts[keys[index]]
        if status != AccountStatus.ACTIVE:
            outcomes[index] = TokenRejected(_ACCOUNT_INVALID_REASONS[status])
            continue
        rows[index] = {
            **_sign_on_row(request),
            "account": account_pk,
            "information": request.device.information,  # type: ignore[union-attr] # it is a NewDevice
            "new_devices": new_devices[keys[index]],
        }
        new_devices[keys[index]] += 1
    if rows:
        stored = await transaction.fetch_all(_register_sql(), sql.values_params([*rows.values()]))
        expirations = {client_id: rest for client_id, *rest in stored}
        for index, row in rows.items():
            if row["device"] in expirations:
                outcomes[index] = _build_sign_on(new[index], row, expirations[row["device"]])
            else:
                outcomes[index] = TokenRejected(RejectReason.DEVICE_LIMIT_REACHED)
    return outcomes


async def _sign_on_known(transaction: Transaction, request: SignOnRequest, client_id: str) -> Outcome:
    row = {**_sign_on_row(request), "account": request.proof.account_id}
    stored = await transaction.fetch_all(_sign_on_known_sql(), sql.values_params([row]))
    if not stored:
        return TokenRejected(await _explain_rejection(transaction, request, client_id))
    return _build_sign_on(request, row, stored[0][1:])


_ACCOUNT_INVALID_REASONS = {
    AccountStatus.SUSPENDED.value: InvalidReason.ACCOUNT_SUSPENDED,
    AccountStatus.CANCELLED.value: InvalidReason.ACCOUNT_CANCELLED,
}


async def _explain_rejection(
    transaction: Transaction, request: SignOnRequest, client_id: str
) -> RejectReason | InvalidReason:
    """A device of another account counts as unknown."""
    params = {"tenant": request.tenant.id, "account": request.proof.account_id, "device": client_id}
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
    # Creates missing accounts. Ordered, so that concurrent statements cannot deadlock.
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
  FROM {sql.values_table(**_COLUMNS, account="bigint", information="jsonb", new_devices="integer")} AS g
  JOIN tenants_tenant t ON t.id = g.tenant
 WHERE t.device_limit IS NULL
    OR t.device_limit > g.new_devices + (SELECT count(*) FROM ags_sessions_device d
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
    "proven_at": "timestamptz",
    "sign_on_ttl": "integer",
    "refresh_ttl": "integer",
    "username_hash": "bytea",
}


def _sign_on_row(request: SignOnRequest) -> dict[str, Any]:
    return {
        "tenant": request.tenant.id,
        "device": request.device.client_id,
        "service": request.proof.service_id,
        "key": request.proof.key_id,
        "new_sign_on": secrets.token_hex(16),
        "correlation": request.context.correlation_id,
        "proven_at": request.proof.accepted_at,
        "sign_on_ttl": request.tenant.rules.sign_on_ttl,
        "refresh_ttl": request.tenant.rules.refresh_token_ttl,
        "username_hash": request.username_hash,
    }


def _sign_on_columns() -> dict[str, str]:
    """Return the SQL expressions of a new sign-on by column."""
    fixed_expires_at = sql.now_plus_seconds("g.sign_on_ttl")
    return {
        "service_id": "g.service",
        "key_id": "g.key",
        "sign_on": "g.new_sign_on",
        "correlation_id": "g.correlation",
        "proven_at": "g.proven_at",
        "signed_on_at": sql.now(),
        "fixed_expires_at": fixed_expires_at,
        "end_reason": "''",
        "generation": "0",
        "refresh_expires_at": sql.least(sql.now_plus_seconds("g.refresh_ttl"), fixed_expires_at),
        "used": sql.json("'[]'"),
        "username_hash": "g.username_hash",
    }


def _returned_columns() -> str:
    return f"client_id, {sql.to_epoch('refresh_expires_at')}, {sql.to_epoch('fixed_expires_at')}"


def _build_sign_on(request: SignOnRequest, row: Mapping[str, Any], expirations: Sequence[float]) -> SignOn:
    return SignOn(request.proof.account_id, row["device"], row["new_sign_on"], 0, *expirations)
