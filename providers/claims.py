"""What the claims of a proven JWT must say, where the providers that are handed one say the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms

from providers.contract import TEXT, Identity, Refusal, Refused, SessionTokenSettings

MAX_CLOCK_SKEW = 300
"""Seconds."""


class TokenSettings(SessionTokenSettings):
    """What staff configure for any service that is handed a JWT."""

    clock_skew = forms.IntegerField(
        min_value=0,
        max_value=MAX_CLOCK_SKEW,
        initial=30,
        help_text="Seconds by which the signer's clock may differ from ours. 0 to 300.",
    )
    replay = forms.ChoiceField(
        choices=[
            ("if_present", "A token with a jti is accepted once"),
            ("required", "Every token must have a jti, and is accepted once"),
            ("off", "A jti is ignored"),
        ],
        initial="if_present",
        help_text="Whether a token can be used again until it expires.",
    )
    max_lifetime = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=366 * 24 * 3600,
        help_text="Refuse a token that expires more than this many seconds from now. Empty: no limit.",
    )


def present(claims: Mapping[str, Any], claim: str) -> Any:
    """Return that claim. Raises `Refused`, as all below."""
    try:
        return claims[claim]
    except KeyError:
        raise Refused(Refusal.CLAIM_MISSING, claim) from None


def text(claims: Mapping[str, Any], claim: str) -> str:
    """Return that claim, which must be there and of the form `TEXT`."""
    value = present(claims, claim)
    if not isinstance(value, str) or not TEXT.fullmatch(value):
        raise Refused(Refusal.CLAIM_INVALID, claim)
    return value


def moment(claims: Mapping[str, Any], claim: str) -> float:
    """Return that claim, a NumericDate: a JSON number, and no other type that Python would take for one."""
    value = present(claims, claim)
    if type(value) not in (int, float):
        raise Refused(Refusal.CLAIM_INVALID, claim)
    try:
        return float(value)
    except OverflowError:
        raise Refused(Refusal.CLAIM_INVALID, claim) from None


def expiry(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> float:
    """Check `exp`, `nbf` and `iat` (RFC 7519, section 4.1) and return `exp`."""
    skew = settings["clock_skew"]
    expires = moment(claims, "exp")
    if expires + skew <= now:
        raise Refused(Refusal.TOKEN_EXPIRED, "exp")
    for claim in ("nbf", "iat"):
        if claim in claims and moment(claims, claim) - skew > now:
            raise Refused(Refusal.TOKEN_NOT_YET_VALID, claim)
    longest = settings["max_lifetime"]
    if longest is not None and expires > now + longest:
        raise Refused(Refusal.LIFETIME_TOO_LONG, "exp")
    return expires


def jti(claims: Mapping[str, Any], replay: str) -> str | None:
    """Return the `jti` by which the token is accepted once, or None where the setting `replay` lets it be."""
    if replay == "off":
        return None
    if replay == "if_present" and "jti" not in claims:
        return None
    return text(claims, "jti")


def identity(account_id: str, key_id: int | None, once: str | None, expires: float) -> Identity:
    """Return the identity that a token proves; with `once`, for as long as it could be replayed."""
    # The widest skew, not today's: staff may widen it while the token still lives.
    guarded = expires + MAX_CLOCK_SKEW if once is not None else None
    return Identity(account_id, key_id, once, guarded)
