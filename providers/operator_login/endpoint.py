"""The client of the operator's login endpoint, as specified in docs/providers/operator_login.md."""

import base64
import json
from collections.abc import Mapping
from typing import Any

from providers.contract import (
    IDENTIFIER,
    MAX_ACCOUNTS,
    Account,
    FailureReason,
    UpstreamUnavailable,
    VerificationFailed,
    parse_account_id,
)
from providers.upstream import Response, request
from providers.upstream.response import invalid_response

LIMIT = 256 * 1024  # maximum bytes of `MAX_ACCOUNTS` accounts with the longest information
_FAILURE_REASONS = {
    (401, "invalid_credentials"): FailureReason.CREDENTIAL_UNKNOWN,
    (403, "account_suspended"): FailureReason.ACCOUNT_SUSPENDED,
    (403, "account_cancelled"): FailureReason.ACCOUNT_CANCELLED,
}
"""By status and `reason`. A 401 or 403 without one of these reasons rejects the credentials of AGS."""


def log_in(tenant: str, username: str, password: str, settings: Mapping[str, Any]) -> tuple[Account, ...]:
    """Return the accounts, at least one. Raises `VerificationFailed` and `UpstreamUnavailable`."""
    body = json.dumps({"tenant": tenant, "username": username, "password": password}).encode()
    response = request(
        "POST", settings["address"], settings, headers=_headers(settings), body=body, limit=LIMIT
    )
    if response.status == 200:
        return _parse_accounts(response)
    if (reason := _FAILURE_REASONS.get((response.status, _reason(response)))) is not None:
        raise VerificationFailed(reason)
    raise response.unavailable()


def _headers(settings: Mapping[str, Any]) -> dict[str, str]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    match settings["authentication"]:
        case "basic":
            pair = f"{settings['user']}:{settings['secret']}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        case "bearer":
            headers["Authorization"] = f"Bearer {settings['secret']}"
    return headers


def _reason(response: Response) -> str:
    try:
        return str(response.json_object().get("reason"))
    except UpstreamUnavailable:
        return ""


def _parse_accounts(response: Response) -> tuple[Account, ...]:
    values = response.json_object().get("accounts")
    if not isinstance(values, list):
        raise invalid_response("its response has no array `accounts`")
    if not values:
        raise VerificationFailed(FailureReason.CREDENTIAL_UNKNOWN)
    if len(values) > MAX_ACCOUNTS:
        raise invalid_response(f"its response has more than {MAX_ACCOUNTS} accounts")
    accounts = tuple(map(_parse_account, values))
    if len({account.id for account in accounts}) < len(accounts):
        raise invalid_response("its response has a duplicate accountId")
    return accounts


def _parse_account(value: Any) -> Account:
    if not isinstance(value, dict):
        raise invalid_response("an account in its response is not an object")
    account_id = parse_account_id(value.get("accountId"))
    if account_id is None:
        raise invalid_response("an account in its response has no valid accountId")
    information = value.get("accountInformation", account_id)
    if not isinstance(information, str) or not IDENTIFIER.fullmatch(information):
        raise invalid_response("an account in its response has no valid accountInformation")
    return Account(account_id, information)
