"""The facts that explain a failure, whatever the token contains."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest

from providers.claims import check_times
from providers.contract import FailureReason, KeyRing, TrustedKey, VerificationFailed, clean_fact
from providers.jose import verify_jws
from providers.operator_token.strategy import OperatorToken
from tests.support.upstream.signer import sign_with_secret
from tests.support.upstream.signer import token as any_token

SECRET = bytes(range(1, 33))
NOW = 1_800_000_000.0
RING = KeyRing(
    "nagra",
    {
        "k": TrustedKey(7, "k", "HS256", SECRET),
        "k384": TrustedKey(8, "k384", "HS384", SECRET * 2),
        "dated": TrustedKey(9, "dated", "HS256", SECRET, not_before=NOW + 60, not_after=NOW + 120),
    },
)
SETTINGS = {"clock_skew": 30, "max_lifetime": 3600, "replay": "if_present"}


def facts_of(call: Any, reason: FailureReason) -> dict[str, Any]:
    with pytest.raises(VerificationFailed) as raised:
        call()
    assert raised.value.reason is reason
    return raised.value.facts


def signed(header: dict[str, Any], claims: Any = None) -> str:
    return any_token(header, claims, sign_with_secret(SECRET))


HOSTILE: dict[str, tuple[Any, Any]] = {
    "short": ("ags", "ags"),
    "long": ("x" * 5000, "x" * 63 + "…"),
    "control characters": ("a\x1b[31m\u202eb", "a?[31m?b"),
    "null": (None, None),
    "a boolean": (True, True),
    "a number": (7, 7),
    "a fraction": (-311.7, -312),
    "thousands of digits": (10**3000, 10**15),
    "not a number": (float("nan"), 10**15),
    "an array": (["ags", "y" * 70, 5, {"a": "secret"}, None, "sixth"],
                 ["ags", "y" * 63 + "…", "(number)", "(object)", "(null)"]),
    "an object": ({"password": "secret"}, "(object)"),
    "nested arrays": ([["secret"]], ["(array)"]),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), HOSTILE.values(), ids=HOSTILE)
def test_a_fact_can_be_stored_and_displayed(value: Any, expected: Any) -> None:
    cleaned = clean_fact(value)
    assert cleaned == expected
    assert len(json.dumps(cleaned, allow_nan=False)) < 1000


# header, reason, facts
HEADERS: dict[str, tuple[dict[str, Any], FailureReason, dict[str, Any]]] = {
    "an unknown kid": ({"alg": "HS256", "kid": "x"}, FailureReason.KEY_UNKNOWN, {"alg": "HS256"}),
    "a long alg": ({"alg": "x" * 99, "kid": "x"}, FailureReason.KEY_UNKNOWN, {"alg": "x" * 63 + "…"}),
    "alg in an object": ({"alg": {"a": "b"}, "kid": "x"}, FailureReason.KEY_UNKNOWN, {"alg": "(object)"}),
    "no alg": ({"kid": "x"}, FailureReason.KEY_UNKNOWN, {}),
    "another alg": (
        {"alg": "HS256", "kid": "k384"},
        FailureReason.ALGORITHM_MISMATCH,
        {"alg": "HS256", "key_alg": "HS384"},
    ),
    "a key that is not valid yet": (
        {"alg": "HS256", "kid": "dated"},
        FailureReason.KEY_NOT_IN_FORCE,
        {"alg": "HS256", "not_before": 60, "not_after": 120},
    ),
    "crit": (
        {"alg": "HS256", "kid": "k", "crit": ["x"], "b64": True},
        FailureReason.HEADER_MEMBER_FORBIDDEN,
        {"members": ["b64", "crit"]},
    ),
    "no kid": (
        {"alg": "HS256"},
        FailureReason.MALFORMED,
        {"problem": "kid in its header is missing"},
    ),
    "a kid with a space": (
        {"alg": "HS256", "kid": "a b"},
        FailureReason.MALFORMED,
        {"problem": "kid in its header is not accepted"},
    ),
    "another typ": (
        {"alg": "HS256", "kid": "k", "typ": "at+jwt"},
        FailureReason.MALFORMED,
        {"problem": "typ in its header is not accepted"},
    ),
}


@pytest.mark.parametrize(("header", "reason", "facts"), HEADERS.values(), ids=HEADERS)
def test_facts_of_a_header(header: dict[str, Any], reason: FailureReason, facts: dict[str, Any]) -> None:
    assert facts_of(lambda: verify_jws(signed(header, {}), RING, NOW), reason) == facts


# claims, reason, facts
TIMES: dict[str, tuple[dict[str, Any], FailureReason, dict[str, Any]]] = {
    "expired": (
        {"exp": NOW - 312, "iat": NOW - 612.4},
        FailureReason.TOKEN_EXPIRED,
        {"exp": -312, "iat": -612, "skew": 30},
    ),
    "expired, with an iat of thousands of digits": (
        {"exp": 0, "iat": 10**1000},
        FailureReason.TOKEN_EXPIRED,
        {"exp": -1_800_000_000, "iat": 10**15 - 1_800_000_000, "skew": 30},
    ),
    "expired, with a text as iat": (
        {"exp": NOW - 31, "iat": "secret"},
        FailureReason.TOKEN_EXPIRED,
        {"exp": -31, "skew": 30},
    ),
    "issued later": (
        {"exp": NOW + 400, "iat": NOW + 100},
        FailureReason.TOKEN_NOT_YET_VALID,
        {"exp": 400, "iat": 100, "skew": 30},
    ),
    "in milliseconds": (
        {"exp": (NOW + 300) * 1000},
        FailureReason.LIFETIME_TOO_LONG,
        {"exp": 1_798_200_300_000, "skew": 30, "max_lifetime": 3600},
    ),
    "not a number": ({"exp": "secret"}, FailureReason.CLAIM_INVALID, {"type": "string"}),
    "a boolean": ({"exp": True}, FailureReason.CLAIM_INVALID, {"type": "boolean"}),
}


@pytest.mark.parametrize(("claims", "reason", "facts"), TIMES.values(), ids=TIMES)
def test_facts_of_times(claims: dict[str, Any], reason: FailureReason, facts: dict[str, Any]) -> None:
    assert facts_of(lambda: check_times(claims, SETTINGS, NOW), reason) == facts


def test_facts_of_an_audience() -> None:
    claims = {"typ": "GetSessionTokenAuthN", "aud": ["a\n", "b" * 99, 1], "exp": time.time() + 60}
    parameters = {"OperatorAuthToken": signed({"alg": "HS256", "kid": "k"}, claims)}
    facts = facts_of(
        lambda: OperatorToken().verify(parameters, SETTINGS, RING), FailureReason.AUDIENCE_MISMATCH
    )
    assert facts == {"audience": ["a?", "b" * 63 + "…", "(number)"], "expected": "ags"}


def test_a_signature_has_no_facts_but_the_algorithm() -> None:
    wrong = jwt.encode({"OpfAccountId": "secret"}, bytes(32), "HS256", {"kid": "k"})
    assert facts_of(lambda: verify_jws(wrong, RING, NOW), FailureReason.SIGNATURE_INVALID) == {"alg": "HS256"}
