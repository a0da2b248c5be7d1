"""A choice of accounts: offered where a proof names several, and made once, for the device that asked."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import INSERTS, fetch_all, transaction
from ags.database.batching import Batcher
from ags.sessions.exceptions import RejectReason, TokenRejected
from ags.sessions.models import SecurityEvent
from ags.sessions.services import single_use
from ags.sessions.services.devices import (
    KnownDevice,
    NewDevice,
    Outcome,
    Proof,
    SignOnRequest,
    sign_on_devices,
    signed_on,
)
from ags.sessions.services.issue import acceptance_join, acceptance_params, explain_rejection
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.jwt import SignOn
from ags.sessions.tokens.opaque import LENGTH, USER_ACCOUNT_TOKEN, hash_token, new_token, token_hashes
from providers.contract import Choice
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# Statements are put together from constants.
# ruff: noqa: S608

LIFETIME = 600
"""Seconds in which an account can be chosen."""

_TOKEN = re.compile(rf"([a-z2-7]{{{LENGTH}}})\.(0|[1-9][0-9]?)")
"""A user account token: the secret of the choice, and the place of the account in it."""


async def create_choice(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    choice: Choice,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> list[str]:
    """Store the choice, and with it the device that asked; when this returns, the row is committed.

    Return a user account token for each account, in their order. Raises as `issue` does.
    """
    secret = new_token()
    acceptance = acceptance_params(tenant, service, choice.key_id)
    row = {
        **acceptance,
        "token_hash": hash_token(secret, USER_ACCOUNT_TOKEN),
        "accounts": [account.id for account in choice.accounts],
        "information": device.information if isinstance(device, NewDevice) else None,
        "client_id": device.client_id if isinstance(device, KnownDevice) else None,
        "correlation_id": correlation_id,
        "lifetime": LIFETIME,
    }
    if not await fetch_all(_create_sql(), sql.values_params([row]), INSERTS):
        raise await explain_rejection(tenant, acceptance)
    return [f"{secret}.{place}" for place in range(len(choice.accounts))]


async def redeem_choice(
    tenant: TenantSnapshot, service: ServiceSnapshot, token: str, correlation_id: str
) -> SignOn:
    """Sign the remembered device on to the chosen account; when this returns, that is committed.

    The whole choice is used. Raises `TokenRejected`, which leaves it open, `StaleSnapshot` if the tenant,
    service or key has changed since it was read, and Django's database errors.
    """
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED)
    hashes, place = token_hashes(parts[1], USER_ACCOUNT_TOKEN), int(parts[2])
    redemption = _Redemption(tenant, service, correlation_id, hashes, place)
    outcome: Outcome | None = await _redemptions.submit(redemption)
    if outcome is None:
        raise await _rejections.explain(redemption)
    return signed_on(outcome)


@dataclass(frozen=True, slots=True)
class _Redemption(single_use.Redemption):
    place: int

    def row(self) -> dict[str, Any]:
        return {**single_use.Redemption.row(self), "place": self.place}


async def _redeem(redemptions: Sequence[_Redemption]) -> list[Outcome | None]:
    """Return the sign-on of each, or why it was denied; None where the choice could not be used."""
    rows = [one.row() for one in redemptions]
    use = _use_sql(len(redemptions[0].hashes))
    async with transaction() as opened:
        used = sql.in_order(rows, await opened.fetch_all(use, sql.values_params(rows)))
        proven = {
            number: _proven(redemptions[number], row) for number, row in enumerate(used) if row is not None
        }
        requests, proofs = (
            [request for request, _ in proven.values()],
            [proof for _, proof in proven.values()],
        )
        signed_on = await sign_on_devices(opened, requests, proofs, _RESTORE)
    outcomes = dict(zip(proven, signed_on, strict=True))
    return [outcomes.get(number) for number in range(len(redemptions))]


_redemptions = Batcher(_redeem)

_RESTORE = "UPDATE ags_sessions_accountchoice SET used_at = NULL"


def _proven(redemption: _Redemption, row: Sequence[Any]) -> tuple[SignOnRequest, Proof]:
    """Return the device that asked in signOn, and the proof of the account that is chosen."""
    accounts, information, client_id, *proof = row
    device = KnownDevice(client_id) if information is None else NewDevice(json.loads(information))
    account_id: str = json.loads(accounts)[redemption.place]
    return SignOnRequest(redemption.tenant, device, redemption.correlation_id), Proof(account_id, *proof)


@sql.cached_sql
def _create_sql() -> str:
    values = sql.values_table(
        tenant="text",
        version="bigint",
        service="bigint",
        key="bigint",
        token_hash="bytea",  # noqa: S106 - a type
        accounts="jsonb",
        information="jsonb",
        client_id="text",
        correlation_id="text",
        lifetime="integer",
    )
    return f"""
INSERT INTO ags_sessions_accountchoice
       (tenant_id, service_id, key_id, token_hash, accounts, information, client_id, correlation_id,
        created_at, expires_at)
SELECT t.id, s.id, k.id, g.token_hash, g.accounts, g.information,
       g.client_id, g.correlation_id, {sql.now()}, {sql.now_plus_seconds("g.lifetime")}
  FROM {values} AS g
  JOIN {acceptance_join()}
RETURNING id
"""


@sql.cached_sql
def _use_sql(hashes: int) -> str:
    # In order, as session tokens are.
    return f"""
UPDATE ags_sessions_accountchoice AS c
   SET used_at = {sql.now()}
  FROM (SELECT c.id AS choice, g.row_number
          FROM {single_use.redemption_rows(hashes, place="integer")} AS g
          JOIN ags_sessions_accountchoice c
            ON c.tenant_id = g.tenant AND c.token_hash IN ({sql.numbered_columns("hash", hashes)})
           AND c.service_id = g.service
         WHERE c.used_at IS NULL AND c.expires_at > {sql.now()}
           AND EXISTS (SELECT 1 FROM {_chosen()}
                        WHERE t.id = st.tenant_id AND t.version = g.version
                          AND st.account_id IS NOT NULL AND ({validity.SESSION_TOKEN_INVALID_REASON}) IS NULL)
         ORDER BY c.id {sql.lock_rows("c")}) AS g
 WHERE c.id = g.choice AND c.used_at IS NULL
RETURNING {sql.row_number()}, accounts, information, client_id, service_id, key_id, created_at, id
"""


@sql.cached_sql
def _state_sql(hashes: int) -> str:
    return f"""
SELECT g.row_number, c.id, {_account()}, c.used_at IS NOT NULL, FALSE,
       c.expires_at <= {sql.now()}, c.service_id,
       (SELECT {validity.SESSION_TOKEN_INVALID_REASON} FROM {_chosen()} WHERE t.id = st.tenant_id)
  FROM {single_use.redemption_rows(hashes, place="integer")} AS g
  JOIN ags_sessions_accountchoice c
    ON c.tenant_id = g.tenant AND c.token_hash IN ({sql.numbered_columns("hash", hashes)})
 WHERE {_account()} IS NOT NULL
"""


_rejections = single_use.Rejections(_state_sql, SecurityEvent.Kind.USER_ACCOUNT_TOKEN_REUSED)


def _account() -> str:
    return sql.array_element("c.accounts", "g.place")


def _chosen() -> str:
    """The choice `c` with one of its accounts, as if it were a session token `st` of that account."""
    return f"""(SELECT c.tenant_id, c.service_id, c.key_id, c.created_at, {_account()} AS account_id) AS st
               CROSS JOIN {validity.SESSION_TOKEN_JOINS}"""
