"""Validation of the introspection response for an active token (RFC 7662, section 2.2)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from providers.claims import MAX_LIFETIME, numeric_date, require, time_facts
from providers.contract import FailureReason, VerificationFailed, json_type, parse_account_id


def validate(response: Mapping[str, Any], settings: Mapping[str, Any], tenant: str, now: float) -> str:
    """Return the account ID. `now`: seconds since the epoch. Raises `VerificationFailed`."""
    # Some servers write null for unset members.
    response = {member: value for member, value in response.items() if value is not None}
    _check_token_type(response, settings)
    _check_times(response, settings, now)
    if settings["issuer"] and _string(response, "iss") != settings["issuer"]:
        raise VerificationFailed(FailureReason.ISSUER_MISMATCH, "iss", expected=settings["issuer"])
    if settings["audience"] and settings["audience"] not in (audience := _strings(response, "aud")):
        expected = settings["audience"]
        raise VerificationFailed(FailureReason.AUDIENCE_MISMATCH, "aud", audience=audience, expected=expected)
    if settings["scope"] and not {*settings["scope"].split()}.issubset(_strings(response, "scope", " ")):
        raise VerificationFailed(FailureReason.CLAIM_MISMATCH, "scope")
    if settings["tenant_member"] and _string(response, settings["tenant_member"]) != tenant:
        raise VerificationFailed(FailureReason.TENANT_MISMATCH, settings["tenant_member"])
    value = require(response, settings["account_member"])
    if (account := parse_account_id(value)) is None:
        raise VerificationFailed(
            FailureReason.CLAIM_INVALID, settings["account_member"], type=json_type(value)
        )
    # In a token that a client obtained for itself, the subject is the client. A client must not impersonate a
    # subscriber by choosing its client ID (RFC 9700, section 4.15).
    if account == parse_account_id(response.get("client_id")):
        raise VerificationFailed(FailureReason.CLAIM_MISMATCH, settings["account_member"])
    return account


def _check_token_type(response: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Require a bearer token: AGS cannot verify possession of the key that `cnf` binds a token to."""
    is_required = settings["token_type"] == "required"  # noqa: S105 - the value of a setting
    if (is_required or "token_type" in response) and _string(response, "token_type").lower() != "bearer":
        raise VerificationFailed(FailureReason.TYPE_MISMATCH, "token_type")
    if "cnf" in response:
        raise VerificationFailed(FailureReason.TYPE_MISMATCH, "cnf")


def _check_times(response: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> None:
    """Check `exp` and `nbf` if present, even though the server says that the token is active."""
    skew, facts = settings["clock_skew"], partial(time_facts, response, settings, now)
    # Some servers write an `exp` of 0 for a token that does not expire.
    if "exp" in response and (expires := numeric_date(response, "exp")) != 0:
        if expires + skew <= now:
            raise VerificationFailed(FailureReason.TOKEN_EXPIRED, "exp", **facts())
        if expires > now + MAX_LIFETIME:
            raise VerificationFailed(
                FailureReason.LIFETIME_TOO_LONG, "exp", max_lifetime=MAX_LIFETIME, **facts()
            )
    if "nbf" in response and numeric_date(response, "nbf") - skew > now:
        raise VerificationFailed(FailureReason.TOKEN_NOT_YET_VALID, "nbf", **facts())


def _string(response: Mapping[str, Any], member: str) -> str:
    value = require(response, member)
    if not isinstance(value, str):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member, type=json_type(value))
    return value


def _strings(response: Mapping[str, Any], member: str, separator: str | None = None) -> list[str]:
    """Return a string, or its parts, as a list. Some servers write an array instead, also of scopes."""
    value = require(response, member)
    if isinstance(value, str):
        return [value] if separator is None else value.split(separator)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member, type=json_type(value))
    return value
