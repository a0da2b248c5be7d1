"""The operator token: what its claims must say."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest

from ags.sessions.tokens.jwt import SignOn, token_response
from providers.contract import FailureReason, Identity, KeyRing, TrustedKey, VerificationFailed
from providers.operator_token.strategy import OperatorToken
from tenants.services.settings import clean_settings
from tenants.snapshot import snapshot
from tests.conftest import HeadEnd
from tests.providers.confusion import CONFUSED
from tests.upstream.signer import shared, signer
from tests.upstream.signer import token as any_token

SECRET = bytes(range(1, 33))
RING = KeyRing("nagra", {"k": TrustedKey(id=7, kid="k", algorithm="HS256", material=SECRET)})
SEED_SAMPLE = (
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjcwNjQ2OTQ4LWQ2ZmItNGNlOC1hNDMzLTUyYTE0ZWUyZmEwYSJ9."
    "eyJ0eXAiOiJHZXRTZXNzaW9uVG9rZW5BdXRoTiIsIk9wZkFjY291bnRJZCI6IlNlc3Npb25Ub2tlblNpZ25PbkFjY291bnQtMDAwMSIs"
    "Ik9wZlRlbmFudElkIjoibmFncmEiLCJleHAiOjE3MzUwODQ4MDAsImF1ZCI6ImFncyJ9."
    "yMwK-RJLh_nUeJPuoVtrfP8ol-sRuvO4dsy0QmRNzS8"
)


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
    # Not jwt.encode: it checks the types of registered claims, which are what is to be wrong here.
    return jwt.api_jws.encode(json.dumps(left).encode(), SECRET, "HS256", {"kid": "k"})


ABSENT = object()

# claims that differ from a good token, settings of the service
ACCEPTED = {
    "a good token": ({}, {}),
    "an array that holds only ags": ({"aud": ["ags"]}, {}),
    "a fraction of a second": ({"exp": lambda now: now + 1.5}, {}),
    "expired within the skew": ({"exp": lambda now: now - 20}, {}),
    "nbf within the skew": ({"nbf": lambda now: now + 20}, {}),
    "iat within the skew": ({"iat": lambda now: now + 20}, {}),
    "good for months": ({"exp": lambda now: now + 100 * 24 * 3600}, {}),
    "good for nearly ten years": ({"exp": lambda now: now + 3652 * 24 * 3600}, {}),
    "within the longest lifetime": ({"exp": lambda now: now + 50}, {"max_lifetime": 60}),
    "an account of 255 characters": ({"OpfAccountId": "ä" * 255}, {}),
    "an account of one character": ({"OpfAccountId": "1"}, {}),
    "an account with spaces and signs": ({"OpfAccountId": " a/b=c'; -- é 😀"}, {}),
    "other claims": ({"sub": "x", "iss": "y", "anything": {"at": ["all"]}}, {}),
    "no jti where it is required to be once only if present": ({}, {"replay": "if_present"}),
    "a jti": ({"jti": "j"}, {"replay": "required"}),
    "a jti of any type where it is ignored": ({"jti": 5}, {"replay": "off"}),
}

REFUSED = {
    "typ missing": ({"typ": ABSENT}, {}, FailureReason.CLAIM_MISSING, "typ"),
    "typ of another token": ({"typ": "DevAuthN"}, {}, FailureReason.TYPE_MISMATCH, "typ"),
    "typ in a list": ({"typ": ["GetSessionTokenAuthN"]}, {}, FailureReason.TYPE_MISMATCH, "typ"),
    "aud missing": ({"aud": ABSENT}, {}, FailureReason.CLAIM_MISSING, "aud"),
    "aud of somebody else": ({"aud": "other"}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
    "aud with somebody else": ({"aud": ["ags", "other"]}, {}, FailureReason.AUDIENCE_MISMATCH, "aud"),
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
    "nbf to come": ({"nbf": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "nbf"),
    "nbf a string": ({"nbf": "1"}, {}, FailureReason.CLAIM_INVALID, "nbf"),
    "nbf null": ({"nbf": None}, {}, FailureReason.CLAIM_INVALID, "nbf"),
    "iat to come": ({"iat": lambda now: now + 60}, {}, FailureReason.TOKEN_NOT_YET_VALID, "iat"),
    "iat false": ({"iat": False}, {}, FailureReason.CLAIM_INVALID, "iat"),
    "good for more than ten years": (
        {"exp": lambda now: now + 3654 * 24 * 3600},
        {},
        FailureReason.LIFETIME_TOO_LONG,
        "exp",
    ),
    "good for longer than a calendar": ({"exp": 1e300}, {}, FailureReason.LIFETIME_TOO_LONG, "exp"),
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
def test_it_accepts(claims: dict[str, Any], settings: dict[str, Any]) -> None:
    identity = verify(token(claims), **settings)
    assert identity.account_id == claims.get("OpfAccountId", "account-1")
    assert identity.key_id == 7


@pytest.mark.usefixtures("frozen_time")
@pytest.mark.parametrize(("claims", "settings", "refusal", "claim"), REFUSED.values(), ids=REFUSED)
def test_it_refuses(
    claims: dict[str, Any], settings: dict[str, Any], refusal: FailureReason, claim: str
) -> None:
    with pytest.raises(VerificationFailed) as refused:
        verify(token(claims), **settings)
    assert (refused.value.reason, refused.value.claim) == (refusal, claim)


def test_a_jti_is_guarded_for_as_long_as_any_setting_would_accept_the_token() -> None:
    expires = int(time.time()) + 50
    assert verify(token({"jti": "j", "exp": expires}), clock_skew=0).replayable_until == expires + 300
    assert verify(token({"jti": "j"})).jti == "j"
    assert verify(token({})).jti is None
    assert verify(token({"jti": "j"}), replay="off").jti is None


def test_the_vendors_sample_parses_as_a_shape_and_its_secret_is_not_known() -> None:
    kid = "70646948-d6fb-4ce8-a433-52a14ee2fa0a"
    ring = KeyRing("nagra", {kid: TrustedKey(id=1, kid=kid, algorithm="HS256", material=SECRET)})
    with pytest.raises(VerificationFailed) as refused:
        verify(SEED_SAMPLE, ring)
    assert refused.value.reason is FailureReason.SIGNATURE_INVALID
    claims = jwt.decode(SEED_SAMPLE, options={"verify_signature": False})
    with pytest.raises(VerificationFailed) as refused:
        verify(jwt.encode(claims, SECRET, "HS256", {"kid": kid}), ring)
    assert refused.value.reason is FailureReason.TOKEN_EXPIRED


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
def test_its_settings_have_bounds(name: str, value: Any) -> None:
    from django.core.exceptions import ValidationError

    with pytest.raises(ValidationError, match=name):
        clean_settings(OperatorToken(), {name: value})


def test_its_settings_have_defaults() -> None:
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


def said(header: dict[str, Any], sign: Any = None, **claims: Any) -> str:
    return any_token({"alg": "HS256", "kid": "k"} | header, GOOD | claims, sign or shared(SECRET))


# The three families of confusion.
MISTAKEN = {
    # The algorithm
    "none": (said({"alg": "none"}, lambda _: b"\0"), FailureReason.ALGORITHM_MISMATCH),
    "none, signed right": (said({"alg": "none"}), FailureReason.ALGORITHM_MISMATCH),
    "HS512": (
        said({"alg": "HS512"}, lambda signed: hmac.new(SECRET, signed, hashlib.sha512).digest()),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256": (said({"alg": "RS256"}, RSA.signature), FailureReason.ALGORITHM_MISMATCH),
    "RS256 called HS256": (said({}, RSA.signature), FailureReason.SIGNATURE_INVALID),
    # The key
    "the key of another operator": (said({}, shared(OTHERS)), FailureReason.SIGNATURE_INVALID),
    "the key of another operator under its ID": (
        said({"kid": "o"}, shared(OTHERS)),
        FailureReason.KEY_UNKNOWN,
    ),
    "an empty secret": (said({}, shared(b"")), FailureReason.SIGNATURE_INVALID),
    "the secret in base64": (said({}, shared(b"AQIDBAUGBwgJCgsMDQ4PEA==")), FailureReason.SIGNATURE_INVALID),
    "a key that comes along": (
        said({"jwk": {"kty": "oct", "k": "AAAA"}}, shared(bytes(3))),
        FailureReason.SIGNATURE_INVALID,
    ),
    "an address that comes along": (
        said({"jku": "https://evil.example/keys"}, shared(OTHERS)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "what is critical": (said({"crit": ["exp"]}), FailureReason.HEADER_MEMBER_FORBIDDEN),
    # A token of another purpose
    "an access token of AGS": (said({}, typ="DevAuthN"), FailureReason.TYPE_MISMATCH),
    "a refresh token of AGS": (said({}, typ="RefreshAuthN"), FailureReason.TYPE_MISMATCH),
    "an ID token": (
        any_token({"alg": "HS256", "kid": "k"}, {"sub": "a"}, shared(SECRET)),
        FailureReason.CLAIM_MISSING,
    ),
    "an access token by its header": (said({"typ": "at+jwt"}), FailureReason.MALFORMED),
    "a session token": ("a1b2c3d4e5f6g7h8i9j0k1l2m3", FailureReason.MALFORMED),
}


@pytest.mark.parametrize(("made", "refusal"), MISTAKEN.values(), ids=MISTAKEN)
def test_it_is_not_mistaken_in_algorithm_key_or_purpose(made: str, refusal: FailureReason) -> None:
    assert verify(said({})).account_id == "a"
    with pytest.raises(VerificationFailed) as refused:
        verify(made)
    assert refused.value.reason is refusal


@pytest.mark.parametrize("make", [make for make, _ in CONFUSED.values()], ids=CONFUSED)
def test_no_token_for_a_provider_with_public_keys_proves_anything_here(make: Any) -> None:
    with pytest.raises(VerificationFailed):
        verify(make(GOOD))


def test_what_ags_itself_has_issued_proves_nothing(nagra: HeadEnd) -> None:
    tenant = snapshot.get_tenant("nagra")
    assert tenant
    now = time.time()
    issued = token_response(tenant, SignOn("account-1", "c" * 32, "s" * 32, 1, now + 99, now + 999))
    for name in ("access_token", "refresh_token"):
        with pytest.raises(VerificationFailed) as refused:
            verify(issued[name], tenant.keys)
        assert refused.value.reason is FailureReason.KEY_UNKNOWN
