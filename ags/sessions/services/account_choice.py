"""The choice between several accounts that match one proof."""

import json
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import INSERTS, fetch_all
from ags.sessions.exceptions import RejectReason, TokenRejected
from ags.sessions.models import SecurityEvent
from ags.sessions.request_context import RequestContext
from ags.sessions.services.devices import KnownDevice, NewDevice, Proof, SignOnRequest
from ags.sessions.services.issue import acceptance_join
from ags.sessions.services.redeemer import Redeemer, Redemption, redemptions_table
from ags.sessions.services.replays import explain_rejection
from ags.sessions.services.sign_on_limit import count_sign_on
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.client_tokens import SignOn
from ags.sessions.tokens.opaque import TOKEN_LENGTH, USER_ACCOUNT_TOKEN, new_token, token_hashes
from providers.contract import Choice
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# Statements are built from constants.
# ruff: noqa: S608

LIFETIME = 600
"""Seconds for which a choice can be redeemed."""

_TOKEN_PATTERN = re.compile(rf"([a-z2-7]{{{TOKEN_LENGTH}}})\.(0|[1-9][0-9]?)")
"""A user account token: the secret of the choice, and the index of the account."""


async def create_choice(
    tenant: TenantSnapshot,
    service: ServiceSnapshot,
    choice: Choice,
    device: NewDevice | KnownDevice,
    context: RequestContext,
    *,
    username_hash: bytes | None = None,
) -> list[str]:
    """Return a user account token for each account, in the same order. Raises the exceptions of `issue`."""
    await count_sign_on(tenant, choice.accounts[0].id)  # which account will be chosen, is unknown
    secret, token_hash = new_token(USER_ACCOUNT_TOKEN)
    row = {
        "tenant": tenant.id,
        "version": tenant.version,
        "service": service.id,
        "key": choice.key_id,
        "token_hash": token_hash,
        "accounts": [account.id for account in choice.accounts],
        "information": device.information if isinstance(device, NewDevice) else None,
        "client_id": device.client_id if isinstance(device, KnownDevice) else None,
        "correlation_id": context.correlation_id,
        "username_hash": username_hash,
        "lifetime": LIFETIME,
    }
    if not await fetch_all(_create_sql(), sql.values_params([row]), INSERTS):
        raise await explain_rejection(tenant, row)
    return [f"{secret}.{index}" for index in range(len(choice.accounts))]


def redeem_choice(
    tenant: TenantSnapshot, service: ServiceSnapshot, token: str, context: RequestContext
) -> Awaitable[SignOn]:
    """Committed when this returns. Raises `StaleSnapshot`, and `TokenRejected`, which uses up no choice."""
    parts = _TOKEN_PATTERN.fullmatch(token)
    if parts is None:
        raise TokenRejected(RejectReason.TOKEN_MALFORMED)
    hashes, account_index = token_hashes(parts[1], USER_ACCOUNT_TOKEN), int(parts[2])
    return _redeemer.redeem(_Redemption(tenant, service, context, hashes, account_index))


@dataclass(frozen=True, slots=True)
class _Redemption(Redemption):
    account_index: int

    def row(self) -> dict[str, Any]:
        return {**Redemption.row(self), "account_index": self.account_index}

    def sign_on_request(self, columns: Sequence[Any]) -> SignOnRequest:
        accounts, information, client_id, username_hash, *proof = columns
        device = KnownDevice(client_id) if information is None else NewDevice(json.loads(information))
        account_id: str = json.loads(accounts)[self.account_index]
        username = None if username_hash is None else bytes(username_hash)
        return SignOnRequest(self.tenant, device, self.context, Proof(account_id, *proof), username)


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
        username_hash="bytea",
        lifetime="integer",
    )
    return f"""
INSERT INTO ags_sessions_accountchoice
       (tenant_id, service_id, key_id, token_hash, accounts, information, client_id, correlation_id,
        username_hash, created_at, expires_at)
SELECT t.id, s.id, k.id, g.token_hash, g.accounts, g.information,
       g.client_id, g.correlation_id, g.username_hash, {sql.now()}, {sql.now_plus_seconds("g.lifetime")}
  FROM {values} AS g
  JOIN {acceptance_join()}
RETURNING id
"""


@sql.cached_sql
def _redeem_sql(hash_count: int) -> str:
    # Locks rows in the order of the ID, so that concurrent statements cannot deadlock.
    return f"""
UPDATE ags_sessions_accountchoice AS c
   SET used_at = {sql.now()}
  FROM (SELECT c.id AS choice, g.row_number
          FROM {redemptions_table(hash_count, account_index="integer")} AS g
          JOIN ags_sessions_accountchoice c
            ON c.tenant_id = g.tenant AND c.token_hash IN ({sql.numbered_columns("hash", hash_count)})
           AND c.service_id = g.service
         WHERE c.used_at IS NULL AND c.expires_at > {sql.now()}
           AND EXISTS (SELECT 1 FROM {_session_token_sql()}
                        WHERE t.id = st.tenant_id AND t.version = g.version
                          AND st.account_id IS NOT NULL AND ({validity.SESSION_TOKEN_INVALID_REASON}) IS NULL)
         ORDER BY c.id {sql.lock_rows("c")}) AS g
 WHERE c.id = g.choice AND c.used_at IS NULL
RETURNING {sql.row_number()}, accounts, information, client_id, username_hash,
          service_id, key_id, created_at, id
"""


@sql.cached_sql
def _state_sql(hash_count: int) -> str:
    return f"""
SELECT g.row_number, c.id, {_account_id_sql()}, c.used_at IS NOT NULL, FALSE,
       c.expires_at <= {sql.now()}, c.service_id,
       (SELECT {validity.SESSION_TOKEN_INVALID_REASON} FROM {_session_token_sql()} WHERE t.id = st.tenant_id)
  FROM {redemptions_table(hash_count, account_index="integer")} AS g
  JOIN ags_sessions_accountchoice c
    ON c.tenant_id = g.tenant AND c.token_hash IN ({sql.numbered_columns("hash", hash_count)})
 WHERE {_account_id_sql()} IS NOT NULL
"""


_redeemer = Redeemer(
    redeem_sql=_redeem_sql,
    restore_sql="UPDATE ags_sessions_accountchoice SET used_at = NULL",
    state_sql=_state_sql,
    reuse_kind=SecurityEvent.Kind.USER_ACCOUNT_TOKEN_REUSED,
    is_event_stored=True,
)


def _account_id_sql() -> str:
    return sql.array_element("c.accounts", "g.account_index")


def _session_token_sql() -> str:
    """FROM clause that presents the chosen account of choice `c` as a session token `st`, with its joins."""
    return f"""(SELECT c.tenant_id, c.service_id, c.key_id, c.created_at,
                       {_account_id_sql()} AS account_id) AS st
               CROSS JOIN {validity.SESSION_TOKEN_JOINS}"""
