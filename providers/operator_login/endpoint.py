"""The operator's endpoint: one request to it, and what its answers mean.

docs/providers/operator_login.md tells operators the same.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from providers.contract import (
    IDENTIFIER,
    MAX_ACCOUNTS,
    Account,
    FailureReason,
    UpstreamFailure,
    UpstreamUnavailable,
    VerificationFailed,
    parse_account_id,
)
from providers.upstream import Response, request

LIMIT = 256 * 1024
"""Bytes of an answer: as many accounts as may be, with the longest names, have room."""

_REFUSALS = {
    (401, "invalid_credentials"): FailureReason.CREDENTIAL_UNKNOWN,
    (403, "account_suspended"): FailureReason.ACCOUNT_SUSPENDED,
    (403, "account_cancelled"): FailureReason.ACCOUNT_CANCELLED,
}
"""What status and `reason` say of the subscriber. Without such a reason, 401 and 403 are said of AGS."""


def log_in(tenant: str, username: str, password: str, settings: Mapping[str, Any]) -> tuple[Account, ...]:
    """Return the accounts, at least one. Raises `VerificationFailed` and `UpstreamUnavailable`."""
    body = json.dumps({"tenant": tenant, "username": username, "password": password}).encode()
    answer = request(
        "POST", settings["address"], settings, headers=_headers(settings), body=body, limit=LIMIT
    )
    if answer.status == 200:
        return _accounts(answer)
    if (refusal := _REFUSALS.get((answer.status, _reason(answer)))) is not None:
        raise VerificationFailed(refusal)
    raise answer.unavailable()


def _headers(settings: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    match settings["authentication"]:
        case "basic":
            pair = f"{settings['user']}:{settings['secret']}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        case "bearer":
            headers["Authorization"] = f"Bearer {settings['secret']}"
    return headers


def _reason(answer: Response) -> str:
    try:
        return str(answer.json_object().get("reason"))
    except UpstreamUnavailable:
        return ""


def _accounts(answer: Response) -> tuple[Account, ...]:
    told = answer.json_object().get("accounts")
    if not isinstance(told, list):
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "its answer has no array accounts")
    if not told:
        raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
    if len(told) > MAX_ACCOUNTS:
        raise UpstreamUnavailable(
            UpstreamFailure.RESPONSE_INVALID, f"its answer has more than {MAX_ACCOUNTS} accounts"
        )
    accounts = tuple(map(_account, told))
    if len({account.id for account in accounts}) < len(accounts):
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "its answer has an accountId twice")
    return accounts


def _account(told: Any) -> Account:
    if not isinstance(told, dict):
        raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, "one of its accounts is no object")
    identifier = parse_account_id(told.get("accountId"))
    if identifier is None:
        raise UpstreamUnavailable(
            UpstreamFailure.RESPONSE_INVALID, "one of its accounts has no accountId of 1 to 255 characters"
        )
    information = told.get("accountInformation", identifier)
    if not isinstance(information, str) or not IDENTIFIER.fullmatch(information):
        raise UpstreamUnavailable(
            UpstreamFailure.RESPONSE_INVALID,
            "one of its accounts has no accountInformation of 1 to 255 characters",
        )
    return Account(identifier, information)
