"""The provider `operator_token`: claims, and confused tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest

from ags.sessions.tokens.client_tokens import SignOn, token_response
from providers.contract import FailureReason, Identity, KeyRing, TrustedKey, VerificationFailed
from providers.operator_token.strategy import OperatorToken
from tenants.services.settings import clean_settings
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, HeadEnd
from tests.support.confused_tokens import CONFUSED
from tests.support.tokens import SEED_SAMPLE
from tests.support.upstream.signer import sign_with_secret, signer
from tests.support.upstream.signer import token as any_token

SECRET = bytes(range(1, 33))
RING = KeyRing("nagra", {"k": TrustedKey(id=7, kid="k", algorithm="HS256", material=SECRET)})


def verify(token: str, ring: KeyRing = RING, **settings: Any) -> Identity:
    strategy = OperatorToken()
    _, cleaned = clean_settings(strategy, settings)
    return strategy.verify({"OperatorAuthToken": token}, cleaned, ring)


def token(claims: dict[str, Any]) -> str:
    now = time.time()
    good = {
        "typ": "GetSessionTokenAuthN",
        "aud": "ags",
        "exp": int(now) + 300,
        "OpfTenantId": "nagra",
        "OpfAccountId": "account-1",
    }
    late = {name: claim(now) if callable(claim) else claim for name, claim in claims.items()}
    left = {name: claim for name, claim in (good | late).items() if claim is not ABSENT}
    # jwt.encode rejects registered claims of a wrong type, which these tests need.
    return jwt.api_jws.encode(json.dumps(left).encode(), SECRET, "HS256", {"kid": "k"})


ABSENT = object()

# claims that differ from a valid token, settings of the service
ACCEPTED = {
    "a valid token": ({}, {}),
    "an array that holds only ags": ({"aud": ["ags"]}, {}),
    "a fraction of a second": ({"exp": lambda now: now + 1.5}, {}),
    "expired within the skew": ({"exp": lambda now: now - 20}, {}),
    "nbf within the skew": ({"nbf": lambda now: now + 20}, {}),
    "iat within the skew": ({"iat": lambda now: now + 20}, {}),
    "valid for months": ({"exp": lambda now: now + 100 * 24 * 3600}, {}),
    "valid for nearly ten years": ({"exp": lambda now: now + 3652 * 24 * 3600}, {}),
    "within the longest lifetime": ({"exp": lambda now: now + 50}, {"max_lifetime": 60}),
    "an account of 255 characters": ({"OpfAccountId": "ä" * 255}, {}),
    "an account of one character": ({"OpfAccountId": "1"}, {}),
    "an account with spaces and punctuation": ({"OpfAccountId": " a/b=c'; -- é 😀"}, {}),
    "other claims": ({"sub": "x", "iss": "y", "anything": {"at": ["all"]}}, {}),
    "no jti, if_present": ({}, {"replay": "if_present"}),
    "a jti": ({"jti": "j"}, {"replay": "required"}),
    "a jti of any type, off": ({"jti": 5}, {"replay": "off"}),
}

REJECTED = {
    "typ missing": ({"typ": ABSENT}, {}, FailureReason.CLAIM_MISSING, "typ"),
    "typ of another token": ({"typ": "DevAuthN"}, {}, FailureReason.TYPE_MISMATCH, "typ"),
    "typ in a list": ({"typ": ["GetSessionTokenAuthN"]}, {}, FailureReason.TYPE_MISMATCH, "typ"),
    "aud missing": ({"aud": ABSENT}, {}, FailureReason.CLAIM_MISSING, "aud"),
    "another audience": ({"aud": "other"}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "a second audience": ({"aud": ["ags", "other"]}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud twice": ({"aud": ["ags", "ags"]}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud empty": ({"aud": []}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud in capitals": ({"aud": "AGS"}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud an object": ({"aud": {"ags": 1}}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "exp missing": ({"exp": ABSENT}, {}, FailureReason.CLAIM_MISSING, "exp"),
    "exp a string": ({"exp": "2000000000"}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp true": ({"exp": True}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp null": ({"exp": None}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp of 400 digits": ({"exp": 10**400}, {}, FailureReason.CLAIM_INVALID, "exp"),
    "exp negative": ({"exp": -1}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "expired": ({"exp": lambda now: now - 60}, {}, FailureReason.TOKEN_EXPIRED, "exp"),
    "expired, no skew": ({"exp": lambda now: now - 1}, {"clock_skew": 0}, FailureReason.TOKEN_EXPIRED, "exp"),
    "nbf in the future": ({"nbf": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "nbf"),
    "nbf a string": ({"nbf": "1"}, {}, FailureReason.CLAIM_INVALID, "nbf"),
    "nbf null": ({"nbf": None}, {}, FailureReason.CLAIM_INVALID, "nbf"),
    "iat in the future": ({"iat": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "iat"),
    "iat false": ({"iat": False}, {}, FailureReason.CLAIM_INVALID, "iat"),
    "valid for more than ten years": (
        {"exp": lambda now: now + 3654 * 24 * 3600},
        {},
        FailureReason.LIFETIME_TOO_LONG,
        "exp",
    ),
    "an exp of 1e300": ({"exp": 1e300}, {}, FailureReason.LIFETIME_TOO_LONG, "exp"),
    "a lifetime too long": ({}, {"max_lifetime": 60}, FailureReason.LIFETIME_TOO_LONG, "exp"),
    "tenant missing": ({"OpfTenantId": ABSENT}, {}, FailureReason.CLAIM_MISSING, "OpfTenantId"),
    "another tenant": ({"OpfTenantId": "sunrise"}, {}, FailureReason.TENANT_MISMATCH, "OpfTenantId"),
    "tenant in capitals": ({"OpfTenantId": "NAGRA"}, {}, FailureReason.TENANT_MISMATCH, "OpfTenantId"),
    "tenant a number": ({"OpfTenantId": 1}, {}, FailureReason.CLAIM_INVALID, "OpfTenantId"),
    "account missing": ({"OpfAccountId": ABSENT}, {}, FailureReason.CLAIM_MISSING, "OpfAccountId"),
    "account empty": ({"OpfAccountId": ""}, {}, FailureReason.CLAIM_INVALID, "OpfAccountId"),
    "account of 256 characters": (
        {"OpfAccountId": "a" * 256},
        {},
        FailureReason.CLAIM_INVALID,
        "OpfAccountId",
    ),
    "account a number": ({"OpfAccountId": 5}, {}, FailureReason.CLAIM_INVALID, "OpfAccountId"),
    "account with a line break": ({"OpfAccountId": "a\nb"}, {}, FailureReason.CLAIM_INVALID, "OpfAccountId"),
    "account with DEL": ({"OpfAccountId": "a\x7f"}, {}, FailureReason.CLAIM_INVALID, "OpfAccountId"),
    "account with a C1 control": ({"OpfAccountId": "a\x85"}, {}, FailureReason.CLAIM_INVALID, "OpfAccountId"),
    "jti missing where required": ({}, {"replay": "required"}, FailureReason.CLAIM_MISSING, "jti"),
    "jti a number": ({"jti": 5}, {}, FailureReason.CLAIM_INVALID, "jti"),
    "jti null": ({"jti": None}, {}, FailureReason.CLAIM_INVALID, "jti"),
    "jti empty": ({"jti": ""}, {}, FailureReason.CLAIM_INVALID, "jti"),
    "jti of 256 characters": ({"jti": "j" * 256}, {}, FailureReason.CLAIM_INVALID, "jti"),
}


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("claims", "settings"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(claims: dict[str, Any], settings: dict[str, Any]) -> None:
    identity = verify(token(claims), **settings)
    assert identity.account_id == claims.get("OpfAccountId", "account-1")
    assert identity.key_id == 7


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("claims", "settings", "reason", "claim"), REJECTED.values(), ids=REJECTED)
def test_rejects(claims: dict[str, Any], settings: dict[str, Any], reason: FailureReason, claim: str) -> None:
    with pytest.raises(VerificationFailed) as raised:
        verify(token(claims), **settings)
    assert (raised.value.reason, raised.value.claim) == (reason, claim)


def test_a_jti_is_stored_for_the_maximum_clock_skew() -> None:
    expires = int(time.time()) + 50
    assert verify(token({"jti": "j", "exp": expires}), clock_skew=0).replayable_until == expires + 300
    assert verify(token({"jti": "j"})).jti == "j"
    assert verify(token({})).jti is None
    assert verify(token({"jti": "j"}), replay="off").jti is None


def test_the_sample_of_the_vendor_is_well_formed() -> None:
    kid = "70646948-d6fb-4ce8-a433-52a14ee2fa0a"
    ring = KeyRing("nagra", {kid: TrustedKey(id=1, kid=kid, algorithm="HS256", material=SECRET)})
    with pytest.raises(VerificationFailed) as raised:
        verify(SEED_SAMPLE, ring)
    assert raised.value.reason is FailureReason.SIGNATURE_INVALID
    claims = jwt.decode(SEED_SAMPLE, options={"verify_signature": False})
    with pytest.raises(VerificationFailed) as raised:
        verify(jwt.encode(claims, SECRET, "HS256", {"kid": kid}), ring)
    assert raised.value.reason is FailureReason.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("session_token_ttl", 0),
        ("session_token_ttl", 3601),
        ("session_token_ttl", "soon"),
        ("clock_skew", -1),
        ("clock_skew", 301),
        ("clock_skew", None),
        ("replay", "sometimes"),
        ("max_lifetime", 0),
        ("max_lifetime", 1.5),
        ("no_such_setting", 1),
    ],
)
def test_invalid_settings_are_rejected(name: str, value: Any) -> None:
    from django.core.exceptions import ValidationError

    with pytest.raises(ValidationError, match=name):
        clean_settings(OperatorToken(), {name: value})


def test_default_settings() -> None:
    stored, cleaned = clean_settings(OperatorToken(), {})
    assert stored == dict(cleaned)
    assert stored == {
        "session_token_ttl": 300,
        "clock_skew": 30,
        "replay": "if_present",
        "max_lifetime": None,
    }


GOOD = {"typ": "GetSessionTokenAuthN", "aud": "ags", "exp": 2e9, "OpfTenantId": "nagra", "OpfAccountId": "a"}
RSA = signer("RS256", "k")
OTHERS = bytes(range(101, 133))


def token_with_header(header: dict[str, Any], sign: Any = None, **claims: Any) -> str:
    return any_token({"alg": "HS256", "kid": "k"} | header, GOOD | claims, sign or sign_with_secret(SECRET))


# Confusion of algorithm, key and purpose.
MISTAKEN = {
    # The algorithm
    "none": (token_with_header({"alg": "none"}, lambda _: b"\0"), FailureReason.ALGORITHM_MISMATCH),
    "none, with a valid signature": (token_with_header({"alg": "none"}), FailureReason.ALGORITHM_MISMATCH),
    "HS512": (
        token_with_header({"alg": "HS512"}, lambda signed: hmac.new(SECRET, signed, hashlib.sha512).digest()),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256": (token_with_header({"alg": "RS256"}, RSA.signature), FailureReason.ALGORITHM_MISMATCH),
    "RS256 declared as HS256": (token_with_header({}, RSA.signature), FailureReason.SIGNATURE_INVALID),
    # The key
    "the key of another operator": (
        token_with_header({}, sign_with_secret(OTHERS)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "the key of another operator under its ID": (
        token_with_header({"kid": "o"}, sign_with_secret(OTHERS)),
        FailureReason.KEY_UNKNOWN,
    ),
    "an empty secret": (token_with_header({}, sign_with_secret(b"")), FailureReason.SIGNATURE_INVALID),
    "the secret in base64": (
        token_with_header({}, sign_with_secret(b"AQIDBAUGBwgJCgsMDQ4PEA==")),
        FailureReason.SIGNATURE_INVALID,
    ),
    "a key in the header": (
        token_with_header({"jwk": {"kty": "oct", "k": "AAAA"}}, sign_with_secret(bytes(3))),
        FailureReason.SIGNATURE_INVALID,
    ),
    "a URL of keys in the header": (
        token_with_header({"jku": "https://evil.example/keys"}, sign_with_secret(OTHERS)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "crit": (token_with_header({"crit": ["exp"]}), FailureReason.HEADER_MEMBER_FORBIDDEN),
    # A token of another purpose
    "an access token of AGS": (token_with_header({}, typ="DevAuthN"), FailureReason.TYPE_MISMATCH),
    "a refresh token of AGS": (token_with_header({}, typ="RefreshAuthN"), FailureReason.TYPE_MISMATCH),
    "an ID token": (
        any_token({"alg": "HS256", "kid": "k"}, {"sub": "a"}, sign_with_secret(SECRET)),
        FailureReason.CLAIM_MISSING,
    ),
    "an access token by its header": (token_with_header({"typ": "at+jwt"}), FailureReason.MALFORMED),
    "a session token": ("a1b2c3d4e5f6g7h8i9j0k1l2m3", FailureReason.MALFORMED),
}


@pytest.mark.parametrize(("made", "reason"), MISTAKEN.values(), ids=MISTAKEN)
def test_confused_algorithm_key_or_purpose_is_rejected(made: str, reason: FailureReason) -> None:
    assert verify(token_with_header({})).account_id == "a"
    with pytest.raises(VerificationFailed) as raised:
        verify(made)
    assert raised.value.reason is reason


@pytest.mark.parametrize("make", [make for make, _ in CONFUSED.values()], ids=CONFUSED)
def test_tokens_for_providers_with_public_keys_are_rejected(make: Any) -> None:
    with pytest.raises(VerificationFailed):
        verify(make(GOOD))


def test_tokens_issued_by_ags_are_rejected(nagra: HeadEnd) -> None:
    tenant = snapshot.get_tenant("nagra")
    assert tenant
    now = time.time()
    issued = token_response(tenant, SignOn("account-1", "c" * 32, "s" * 32, 1, now + 99, now + 999))
    for name in ("access_token", "refresh_token"):
        with pytest.raises(VerificationFailed) as raised:
            verify(issued[name], tenant.services[SERVICE].keys)
        assert raised.value.reason is FailureReason.KEY_UNKNOWN
