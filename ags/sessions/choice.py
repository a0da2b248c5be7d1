"""A choice of accounts: offered where a proof names several, and made once, for the device that asked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from django.db import transaction

from ags.sessions import dialect, once, standing
from ags.sessions.client_tokens import SignOn
from ags.sessions.denial import Denial, Denied
from ags.sessions.device import KnownDevice, NewDevice, Proof, admit
from ags.sessions.issue import acceptance_join, acceptance_params, explain_rejection
from ags.sessions.models import SecurityEvent
from ags.sessions.tokens import LENGTH, USER_ACCOUNT_TOKEN, hash_of, hashes_of, new_token
from providers.contract import Choice
from tenants.view import ServiceView, TenantView

# Statements are put together from constants.
# ruff: noqa: S608

LIFETIME = 600
"""Seconds in which an account can be chosen."""

_TOKEN = re.compile(rf"([a-z2-7]{{{LENGTH}}})\.(0|[1-9][0-9]?)")
"""A user account token: the secret of the choice, and the place of the account in it."""


def offer(
    tenant: TenantView,
    service: ServiceView,
    choice: Choice,
    device: NewDevice | KnownDevice,
    correlation_id: str,
) -> list[str]:
    """Store the choice, and with it the device that asked; when this returns, the row is committed.

    Return a user account token for each account, in their order. Raises `Refused(KEY_NOT_IN_FORCE)`, `Stale`
    and Django's database errors, as `consume_proof` does.
    """
    secret = new_token()
    acceptance = acceptance_params(tenant, service, choice.key_id)
    stored = dialect.one(
        _storing(),
        **acceptance,
        token_hash=hash_of(secret, USER_ACCOUNT_TOKEN),
        accounts=json.dumps([account.id for account in choice.accounts]),
        information=json.dumps(device.information) if isinstance(device, NewDevice) else None,
        client_id=device.client_id if isinstance(device, KnownDevice) else None,
        correlation_id=correlation_id,
        lifetime=LIFETIME,
    )
    if stored is None:
        raise explain_rejection(tenant, acceptance)
    return [f"{secret}.{place}" for place in range(len(choice.accounts))]


def choose(tenant: TenantView, service: ServiceView, token: str, correlation_id: str) -> SignOn:
    """Sign the remembered device on to the chosen account; when this returns, that is committed.

    With it the whole choice is used. Raises `Denied`, which leaves it open, `Stale` when tenant, service or
    key are no longer what was read, and Django's database errors.
    """
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise Denied(Denial.TOKEN_MALFORMED)
    hashes, place = hashes_of(parts[1], USER_ACCOUNT_TOKEN), int(parts[2])
    try:
        with transaction.atomic():
            proof, device = _use(tenant, service, hashes, place)
            return admit(tenant, proof, device, correlation_id)
    except _NotUsed:
        raise _why_not(tenant, service, hashes, place, correlation_id) from None


class _NotUsed(Exception):
    """The deciding statement found no choice that is open."""


def _use(
    tenant: TenantView, service: ServiceView, hashes: Iterable[bytes], place: int
) -> tuple[Proof, NewDevice | KnownDevice]:
    named = dialect.numbered("hash", hashes)
    row = dialect.one(
        _using(len(named)),
        tenant=tenant.id,
        service=service.id,
        version=tenant.version,
        place=place,
        **named,
    )
    if row is None:
        raise _NotUsed
    *proof, information, client_id = row
    known = information is None
    return Proof(*proof), KnownDevice(client_id) if known else NewDevice(json.loads(information))


def _why_not(
    tenant: TenantView, service: ServiceView, hashes: Iterable[bytes], place: int, correlation_id: str
) -> Exception:
    named = dialect.numbered("hash", hashes)
    row = dialect.one(_looking(len(named)), tenant=tenant.id, place=place, **named)
    return once.why_not(tenant, service, row, SecurityEvent.Kind.USER_ACCOUNT_TOKEN_REUSED, correlation_id)


@dialect.written_once
def _storing() -> str:
    return f"""
INSERT INTO ags_sessions_accountchoice
       (tenant_id, service_id, key_id, token_hash, accounts, information, client_id, correlation_id,
        created_at, expires_at)
SELECT t.id, s.id, k.id, %(token_hash)s, {dialect.json("accounts")}, {dialect.json("information")},
       %(client_id)s, %(correlation_id)s, {dialect.now()}, {dialect.after("lifetime")}
  FROM (SELECT 1) AS one JOIN {acceptance_join()}
RETURNING id
"""


@dialect.written_once
def _using(hashes: int) -> str:
    account = dialect.element("accounts", "place")
    return f"""
UPDATE ags_sessions_accountchoice AS c
   SET used_at = {dialect.now()}
 WHERE c.tenant_id = %(tenant)s AND c.token_hash IN ({dialect.listed("hash", hashes)})
   AND c.service_id = %(service)s AND c.used_at IS NULL AND c.expires_at > {dialect.now()}
   AND EXISTS (SELECT 1 FROM {_chosen()}
                WHERE t.id = st.tenant_id AND t.version = %(version)s
                  AND st.account_id IS NOT NULL AND ({standing.SESSION_TOKEN}) IS NULL)
RETURNING {account}, service_id, key_id, created_at, information, client_id
"""


@dialect.written_once
def _looking(hashes: int) -> str:
    return f"""
SELECT c.id, {dialect.element("c.accounts", "place")}, c.used_at IS NOT NULL, FALSE,
       c.expires_at <= {dialect.now()}, c.service_id,
       (SELECT {standing.SESSION_TOKEN} FROM {_chosen()} WHERE t.id = st.tenant_id)
  FROM ags_sessions_accountchoice c
 WHERE c.tenant_id = %(tenant)s AND c.token_hash IN ({dialect.listed("hash", hashes)})
   AND {dialect.element("c.accounts", "place")} IS NOT NULL
"""


def _chosen() -> str:
    """The choice `c` with one of its accounts, as if it were a session token `st` of that account."""
    return f"""(SELECT c.tenant_id, c.service_id, c.key_id, c.created_at,
                               {dialect.element("c.accounts", "place")} AS account_id) AS st
               CROSS JOIN {standing.OF_SESSION_TOKEN}"""
