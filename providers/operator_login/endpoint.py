"""The operator's endpoint: one request to it, and what its answers mean.

docs/providers/operator_login.md tells operators the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from providers.contract import (
    ACCOUNTS_AT_MOST,
    TEXT,
    Account,
    Outage,
    Refusal,
    Refused,
    Unavailable,
    account_id_of,
)
from providers.upstream import Answer, ask

LIMIT = 256 * 1024
"""Bytes of an answer: as many accounts as may be, with the longest names, have room."""

_REFUSALS = {
    (401, "invalid_credentials"): Refusal.CREDENTIAL_UNKNOWN,
    (403, "account_suspended"): Refusal.ACCOUNT_SUSPENDED,
    (403, "account_cancelled"): Refusal.ACCOUNT_CANCELLED,
}
"""What status and `reason` say of the subscriber. Without such a reason, 401 and 403 are said of AGS."""


def log_in(tenant: str, username: str, password: str, settings: Mapping[str, Any]) -> tuple[Account, ...]:
    """Return the accounts that these open, at least one. Raises `Refused` and `Unavailable`."""
    body = json.dumps({"tenant": tenant, "username": username, "password": password}).encode()
    answer = ask("POST", settings["address"], settings, headers=_headers(settings), body=body, limit=LIMIT)
    if answer.status == 200:
        return _accounts(answer)
    if (refusal := _REFUSALS.get((answer.status, _reason(answer)))) is not None:
        raise Refused(refusal)
    raise answer.outage()


def _headers(settings: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    match settings["authentication"]:
        case "basic":
            pair = f"{settings['user']}:{settings['secret']}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        case "bearer":
            headers["Authorization"] = f"Bearer {settings['secret']}"
    return headers


def _reason(answer: Answer) -> str:
    try:
        return str(answer.json_object().get("reason"))
    except Unavailable:
        return ""


def _accounts(answer: Answer) -> tuple[Account, ...]:
    told = answer.json_object().get("accounts")
    if not isinstance(told, list):
        raise Unavailable(Outage.WRONG, "its answer has no array accounts")
    if not told:
        raise Refused(Refusal.CREDENTIAL_UNKNOWN)
    if len(told) > ACCOUNTS_AT_MOST:
        raise Unavailable(Outage.WRONG, f"its answer has more than {ACCOUNTS_AT_MOST} accounts")
    accounts = tuple(map(_account, told))
    if len({account.id for account in accounts}) < len(accounts):
        raise Unavailable(Outage.WRONG, "its answer has an accountId twice")
    return accounts


def _account(told: Any) -> Account:
    if not isinstance(told, dict):
        raise Unavailable(Outage.WRONG, "one of its accounts is no object")
    identifier = account_id_of(told.get("accountId"))
    if identifier is None:
        raise Unavailable(Outage.WRONG, "one of its accounts has no accountId of 1 to 255 characters")
    information = told.get("accountInformation", identifier)
    if not isinstance(information, str) or not TEXT.fullmatch(information):
        raise Unavailable(
            Outage.WRONG, "one of its accounts has no accountInformation of 1 to 255 characters"
        )
    return Account(identifier, information)
