"""Rules for the claims of a verified JWT, and their settings, shared by several providers."""

import re
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from providers.contract import (
    IDENTIFIER,
    FailureReason,
    Identity,
    SessionTokenSettings,
    VerificationFailed,
    clean_fact,
    json_type,
    parse_account_id,
)

MAX_CLOCK_SKEW = 300  # seconds
MAX_LIFETIME = (10 * 365 + 3) * 24 * 3600
"""Seconds from now: ten years. A later `exp` is in another unit, such as milliseconds."""


class TokenSettings(SessionTokenSettings):
    """Settings of every service that verifies a JWT."""

    clock_skew = forms.IntegerField(
        min_value=0,
        max_value=MAX_CLOCK_SKEW,
        initial=30,
        help_text="Seconds by which the signer's clock may differ from the clock of AGS. 0 to 300.",
    )
    replay = forms.ChoiceField(
        choices=[
            ("if_present", "A token with a jti is accepted once"),
            ("required", "Every token must have a jti, and is accepted once"),
            ("off", "The jti is ignored: a token can be used until it expires"),
        ],
        initial="if_present",
        help_text="How often a token is accepted.",
    )
    max_lifetime = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=366 * 24 * 3600,
        help_text="Reject tokens that expire more than this many seconds from now. Empty: ten years.",
    )


_NAME = re.compile("[!-<>-~]{1,128}")


class ClaimNameField(forms.CharField):
    """The name of a claim: 1 to 128 printable ASCII characters except `=`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"max_length": 128, **kwargs})

    def clean(self, value: Any) -> str:
        name: str = super().clean(value) or ""
        if name and not _NAME.fullmatch(name):
            raise ValidationError("Enter the name of a claim: printable ASCII characters except space and =.")
        return name


class RequiredClaimsField(forms.CharField):
    """Required claims as lines of `name=value`, at most 4,096 characters."""

    def __init__(self, **kwargs: Any) -> None:
        widget = forms.Textarea(attrs={"rows": 3, "spellcheck": "false"})
        super().__init__(**{"max_length": 4096, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        lines = [line.strip() for line in (super().clean(value) or "").splitlines()]
        pairs = [line.partition("=") for line in lines if line]
        if not all(_NAME.fullmatch(name) and is_value for name, _, is_value in pairs):
            raise ValidationError("Enter one claim and its value per line, such as email_verified=true.")
        if len({name for name, _, _ in pairs}) != len(pairs):
            raise ValidationError("Enter each claim only once.")
        return "\n".join("".join(pair) for pair in pairs)


class ClaimSettings(forms.Form):
    """Settings of services whose operator chooses the names of the claims."""

    account_claim = ClaimNameField(initial="sub", help_text="The claim that contains the account ID.")
    tenant_claim = ClaimNameField(
        required=False,
        help_text="The claim that must be equal to nv-tenant-id. Empty: the tenant is not checked.",
    )
    required_claims = RequiredClaimsField(
        required=False,
        help_text="Further required claims, one name=value per line. The claim must be this string; true and "
        "false also match the boolean.",
    )


def require(claims: Mapping[str, Any], claim: str) -> Any:
    """Return a claim that must be present. Raises `VerificationFailed`, as do all functions below."""
    try:
        return claims[claim]
    except KeyError:
        raise VerificationFailed(FailureReason.CLAIM_MISSING, claim) from None


def string(claims: Mapping[str, Any], claim: str) -> str:
    """Return a claim that must be an `IDENTIFIER`."""
    value = require(claims, claim)
    if not isinstance(value, str) or not IDENTIFIER.fullmatch(value):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, claim, type=json_type(value))
    return value


def numeric_date(claims: Mapping[str, Any], claim: str) -> float:
    """Return a claim that must be a NumericDate: a JSON number (RFC 7519, section 2)."""
    value = require(claims, claim)
    if type(value) not in (int, float):
        raise VerificationFailed(FailureReason.CLAIM_INVALID, claim, type=json_type(value))
    try:
        return float(value)
    except OverflowError:
        raise VerificationFailed(FailureReason.CLAIM_INVALID, claim, type="number") from None


def check_issuer(claims: Mapping[str, Any], issuer: str) -> None:
    """Require that `iss` is the issuer, compared byte by byte (RFC 7519, section 4.1.1)."""
    if require(claims, "iss") != issuer:
        raise VerificationFailed(FailureReason.ISSUER_MISMATCH, "iss", expected=issuer)


def audiences(claims: Mapping[str, Any], own: str) -> list[str]:
    """Return the audiences in `aud`, which must include `own` (RFC 7519, section 4.1.3)."""
    value = require(claims, "aud")
    listed = value if isinstance(value, list) else [value]
    if own not in listed or not all(isinstance(audience, str) for audience in listed):
        raise VerificationFailed(FailureReason.AUDIENCE_MISMATCH, "aud", audience=value, expected=own)
    return listed


def check_no_events(claims: Mapping[str, Any]) -> None:
    """Reject a Security Event Token, such as a logout token: it does not authenticate its subject."""
    # RFC 8417, section 4; OpenID Connect Back-Channel Logout, section 2.4.
    if "events" in claims:
        raise VerificationFailed(FailureReason.TYPE_MISMATCH, "events")


def get_account_id(claims: Mapping[str, Any], settings: Mapping[str, Any], tenant: str) -> str:
    """Check the required claims and the tenant claim of `ClaimSettings`, and return the account ID."""
    for line in settings["required_claims"].splitlines():
        name, _, required = line.partition("=")
        value = require(claims, name)
        # `true` and `false` also match the boolean.
        if (str(value).lower() if isinstance(value, bool) else value) != required:
            raise VerificationFailed(FailureReason.CLAIM_MISMATCH, name)
    claim = settings["tenant_claim"]
    if claim and string(claims, claim) != tenant:
        raise VerificationFailed(FailureReason.TENANT_MISMATCH, claim)
    claim = settings["account_claim"]
    value = require(claims, claim)
    if (account_id := parse_account_id(value)) is None:
        raise VerificationFailed(FailureReason.CLAIM_INVALID, claim, type=json_type(value))
    return account_id


def check_times(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> float:
    """Check `exp`, `nbf` and `iat` (RFC 7519, section 4.1) and return `exp`."""
    skew = settings["clock_skew"]
    expires = numeric_date(claims, "exp")
    if expires + skew <= now:
        raise VerificationFailed(FailureReason.TOKEN_EXPIRED, "exp", **time_facts(claims, settings, now))
    for claim in ("nbf", "iat"):
        if claim in claims and numeric_date(claims, claim) - skew > now:
            facts = time_facts(claims, settings, now)
            raise VerificationFailed(FailureReason.TOKEN_NOT_YET_VALID, claim, **facts)
    maximum = settings["max_lifetime"] or MAX_LIFETIME
    if expires > now + maximum:
        facts = time_facts(claims, settings, now)
        raise VerificationFailed(FailureReason.LIFETIME_TOO_LONG, "exp", max_lifetime=maximum, **facts)
    return expires


def time_facts(claims: Mapping[str, Any], settings: Mapping[str, Any], now: float) -> dict[str, Any]:
    """Return the times in the token as seconds after `now`, and the allowed difference, for a failure."""
    times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
    facts = {name: clean_fact(time) - now for name, time in times.items() if type(time) in (int, float)}
    return {**facts, "skew": settings["clock_skew"]}


def jti(claims: Mapping[str, Any], replay: str) -> str | None:
    """Return the `jti` if the token is accepted only once, or None if it can be used again."""
    if replay == "off" or (replay == "if_present" and "jti" not in claims):
        return None
    return string(claims, "jti")


def create_identity(account_id: str, key_id: int | None, replay_id: str | None, expires: float) -> Identity:
    """Return the identity of a token. With a `replay_id`, such as its `jti`, it is accepted only once."""
    # The maximum skew, not the current setting: staff may increase it before the token expires.
    replayable_until = expires + MAX_CLOCK_SKEW if replay_id is not None else None
    return Identity(account_id, key_id, replay_id, replayable_until)
