"""Validation of the introspection response for an active token (RFC 7662, section 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from providers.claims import MAX_LIFETIME
from providers.contract import FailureReason, VerificationFailed, parse_account_id


def validate(said: Mapping[str, Any], settings: Mapping[str, Any], tenant: str, now: float) -> str:
    """Return the account ID. `now`: seconds since the epoch. Raises `VerificationFailed`.

    A null member counts as absent: some servers write null for a member that is not set.
    """
    said = {member: value for member, value in said.items() if value is not None}
    _check_kind(said, settings)
    _check_times(said, settings["clock_skew"], now)
    if settings["issuer"] and _text(said, "iss") != settings["issuer"]:
        raise VerificationFailed(FailureReason.ISSUER_MISMATCH, "iss")
    if settings["audience"] and settings["audience"] not in _audience(said):
        raise VerificationFailed(FailureReason.AUDIENCE_MISMATCH, "aud")
    if settings["scope"] and not {*settings["scope"].split()} <= _scopes(said):
        raise VerificationFailed(FailureReason.CLAIM_MISMATCH, "scope")
    if settings["tenant_member"] and _text(said, settings["tenant_member"]) != tenant:
        raise VerificationFailed(FailureReason.TENANT_MISMATCH, settings["tenant_member"])
    account = parse_account_id(_present(said, settings["account_member"]))
    if account is None:
        raise VerificationFailed(FailureReason.CLAIM_INVALID, settings["account_member"])
    # A token that a client got for itself names the client. No client may pass for a subscriber by choosing
    # its name (RFC 9700, section 4.15).
    if account == parse_account_id(said.get("client_id")):
        raise VerificationFailed(FailureReason.CLAIM_MISMATCH, settings["account_member"])
    return account


def _check_kind(said: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Require a bearer token: AGS cannot verify that the caller has the key of a key-bound token."""
    is_due = settings["token_type"] == "required"  # noqa: S105 - a word of a setting
    if (is_due or "token_type" in said) and _text(said, "token_type").lower() != "bearer":
        raise VerificationFailed(FailureReason.TYPE_MISMATCH, "token_type")
    if "cnf" in said:
        raise VerificationFailed(FailureReason.TYPE_MISMATCH, "cnf")


def _check_times(said: Mapping[str, Any], skew: int, now: float) -> None:
    """Check `exp` and `nbf` if present: the server may be wrong about an active token.

    Some servers write an `exp` of 0 for a token that does not expire.
    """
    if "exp" in said and (expires := _number(said, "exp")) != 0:
        if expires + skew <= now:
            raise VerificationFailed(FailureReason.TOKEN_EXPIRED, "exp")
        if expires > now + MAX_LIFETIME:
            raise VerificationFailed(FailureReason.LIFETIME_TOO_LONG, "exp")
    if "nbf" in said and _number(said, "nbf") - skew > now:
        raise VerificationFailed(FailureReason.TOKEN_NOT_YET_VALID, "nbf")


def _present(said: Mapping[str, Any], member: str) -> Any:
    try:
        return said[member]
    except KeyError:
        raise VerificationFailed(FailureReason.CLAIM_MISSING, member) from None


def _text(said: Mapping[str, Any], member: str) -> str:
    value = _present(said, member)
    if not isinstance(value, str):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member)
    return value


def _audience(said: Mapping[str, Any]) -> list[str]:
    value = _present(said, "aud")
    return [value] if isinstance(value, str) else _texts(value, "aud")


def _scopes(said: Mapping[str, Any]) -> set[str]:
    """Return the scopes: words in a string (RFC 7662, section 2.2), or the array that some servers write."""
    value = _present(said, "scope")
    return {*(value.split(" ") if isinstance(value, str) else _texts(value, "scope"))}


def _texts(value: Any, member: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member)
    return value


def _number(said: Mapping[str, Any], member: str) -> float:
    """A JSON number, and no other type that Python would take for one."""
    value = said[member]
    if type(value) not in (int, float):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member)
    try:
        return float(value)
    except OverflowError:
        raise VerificationFailed(FailureReason.CLAIM_INVALID, member) from None
