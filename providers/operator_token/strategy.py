"""The operator token: a JWT over account and tenant, signed by the head-end with a shared secret."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from django import forms
from rest_framework import serializers

from providers.contract import (
    TEXT,
    Endpoint,
    Example,
    Finding,
    Identity,
    KeyRing,
    Parameter,
    Refusal,
    Refused,
    SessionTokenSettings,
    Strategy,
)
from providers.jose import prove

TOKEN_TYPE = "GetSessionTokenAuthN"  # noqa: S105 - the public value of the claim `typ`
AUDIENCE = "ags"
MAX_CLOCK_SKEW = 300


class OperatorTokenParameters(serializers.Serializer[Any]):
    """What the head-end sends."""

    OperatorAuthToken = Parameter(
        description="A JWT over account and tenant, signed with a secret that the operator and AGS share."
    )


class OperatorTokenSettings(SessionTokenSettings):
    """What staff configure."""

    clock_skew = forms.IntegerField(
        min_value=0,
        max_value=MAX_CLOCK_SKEW,
        initial=30,
        help_text="Seconds by which the head-end's clock may differ from ours. 0 to 300.",
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


class OperatorToken(Strategy):
    """Verifies an `OperatorAuthToken`."""

    slug = "operator_token"
    label = "Operator token (JWT with a shared secret)"
    endpoints = (Endpoint.GET_SESSION_TOKEN, Endpoint.SIGNON_WITH_SESSION_TOKEN, Endpoint.SIGNOUT)
    Parameters = OperatorTokenParameters
    Settings = OperatorTokenSettings
    # Of the right form, and signed by nobody.
    example = Example(
        parameters={"OperatorAuthToken": "eyJhbGciOiJIUzI1NiIsImtpZCI6ImtleS0xIn0.e30." + "A" * 43}
    )

    def verify(self, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing) -> Identity:
        """Return the account that the token names, once signature, times and tenant agree."""
        now = time.time()
        proven = prove(parameters["OperatorAuthToken"], keys, now)
        claims = proven.claims
        for claim, is_right, refusal in _FIXED:
            if not is_right(_present(claims, claim)):
                raise Refused(refusal, claim)
        expires = _check_times(claims, settings, now)
        account_id = _text(_present(claims, "OpfAccountId"), "OpfAccountId")
        if _text(_present(claims, "OpfTenantId"), "OpfTenantId") != keys.tenant:
            raise Refused(Refusal.TENANT_MISMATCH, "OpfTenantId")
        jti = _jti(claims, settings["replay"])
        return Identity(
            account_id=account_id,
            key_id=proven.key.id,
            jti=jti,
            # The widest skew, not today's: staff may widen it while the token still lives.
            replayable_until=expires + MAX_CLOCK_SKEW if jti is not None else None,
        )

    def check(self, settings: Mapping[str, Any], keys: KeyRing) -> Iterable[Finding]:
        """Say which keys could sign a token that is accepted now."""
        now = time.time()
        kids = sorted(kid for kid, key in keys.keys.items() if key.refusal(now) is None)
        if kids:
            yield Finding(good=True, sentence=f"Keys in force: {', '.join(kids)}.")
        else:
            yield Finding(good=False, sentence="The tenant has no key in force: no token can be accepted.")


# claim, its rule, the refusal
_FIXED = (
    ("typ", lambda value: value == TOKEN_TYPE, Refusal.TYPE_MISMATCH),
    ("aud", lambda value: value in (AUDIENCE, [AUDIENCE]), Refusal.AUDIENCE_MISMATCH),
)


def _present(claims: Mapping[str, Any], claim: str) -> Any:
    try:
        return claims[claim]
    except KeyError:
        raise Refused(Refusal.CLAIM_MISSING, claim) from None


def _check_times(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> float:
    """Check `exp`, `nbf` and `iat` (RFC 7519, section 4.1) and return `exp`."""
    skew = settings["clock_skew"]
    expires = _number(_present(claims, "exp"), "exp")
    if expires + skew <= now:
        raise Refused(Refusal.TOKEN_EXPIRED, "exp")
    for claim in ("nbf", "iat"):
        if claim in claims and _number(claims[claim], claim) - skew > now:
            raise Refused(Refusal.TOKEN_NOT_YET_VALID, claim)
    longest = settings["max_lifetime"]
    if longest is not None and expires > now + longest:
        raise Refused(Refusal.LIFETIME_TOO_LONG, "exp")
    return expires


def _number(value: Any, claim: str) -> float:
    """A NumericDate: a JSON number, and no other type that Python would take for one."""
    if type(value) not in (int, float):
        raise Refused(Refusal.CLAIM_INVALID, claim)
    try:
        return float(value)
    except OverflowError:
        raise Refused(Refusal.CLAIM_INVALID, claim) from None


def _text(value: Any, claim: str) -> str:
    if not isinstance(value, str) or not TEXT.fullmatch(value):
        raise Refused(Refusal.CLAIM_INVALID, claim)
    return value


def _jti(claims: Mapping[str, Any], replay: str) -> str | None:
    if replay == "off":
        return None
    if replay == "if_present" and "jti" not in claims:
        return None
    return _text(_present(claims, "jti"), "jti")
