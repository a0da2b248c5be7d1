"""Strict verification of a JWS: tables of accepted and rejected tokens."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

import pytest

from providers.contract import FailureReason, KeyRing, TrustedKey, VerificationFailed, log_context
from providers.jose import verify_jws

SECRET = bytes(range(1, 65))
NOW = 1_800_000_000.0
HASHES = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}


def key(kid: str, algorithm: str = "HS256", **fields: Any) -> TrustedKey:
    return TrustedKey(id=1, kid=kid, algorithm=algorithm, **{"material": SECRET, **fields})


RING = KeyRing(
    "nagra",
    {
        known.kid: known
        for known in (
            key("k"),
            key("k384", "HS384"),
            key("k512", "HS512"),
            key("revoked", in_force=False),
            key("sealed", material=None),
            key("early", not_before=NOW + 1),
            key("late", not_after=NOW),
            key("dated", not_before=NOW, not_after=NOW + 1),
        )
    },
)


def b64(raw: bytes | str | dict[str, Any]) -> str:
    if isinstance(raw, dict):
        raw = json.dumps(raw)
    if isinstance(raw, str):
        raw = raw.encode()
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(header: Any, payload: Any = '{"a":1}', secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    """Return a signed compact JWS with any header and payload, valid or not."""
    parts = f"{b64(header)}.{b64(payload)}"
    return f"{parts}.{b64(hmac.new(secret, parts.encode(), HASHES[algorithm]).digest())}"


GOOD: dict[str, Any] = {"alg": "HS256", "kid": "k"}
TOKEN = signed(GOOD)
HEAD, BODY, SIGNATURE = TOKEN.split(".")

ACCEPTED = {
    "without typ": TOKEN,
    "with typ JWT": signed({**GOOD, "typ": "JWT"}),
    "with typ in lower case": signed({**GOOD, "typ": "jwt"}),
    "with typ in full": signed({**GOOD, "typ": "Application/JWT"}),
    **{
        f"the header member {name}": signed({**GOOD, name: value})
        for name, value in {
            "jku": "https://evil.example/keys",
            "jwk": {"kty": "oct", "k": "AAAA"},
            "x5u": "https://evil.example/cert",
            "x5c": [],
            "zip": "DEF",
            "cty": "JWT",
            "ALG": "none",
            "Crit": ["exp"],
        }.items()
    },
    "HS384": signed({"alg": "HS384", "kid": "k384"}, algorithm="HS384"),
    "HS512": signed({"alg": "HS512", "kid": "k512"}, algorithm="HS512"),
    "a key within its dates": signed({"alg": "HS256", "kid": "dated"}),
    "white space in the JSON": signed('{ "alg":"HS256",\n"kid":"k" }', ' { "a" : 1 } '),
}

REJECTED = {
    # Not a canonical compact JWS
    "nothing": ("", FailureReason.MALFORMED),
    "garbage": ("garbage", FailureReason.MALFORMED),
    "two parts": (f"{HEAD}.{BODY}", FailureReason.MALFORMED),
    "four parts": (f"{TOKEN}.{SIGNATURE}", FailureReason.MALFORMED),
    "no signature": (f"{HEAD}.{BODY}.", FailureReason.MALFORMED),
    "no payload": (f"{HEAD}..{SIGNATURE}", FailureReason.MALFORMED),
    "padding": (f"{HEAD}.{BODY}.{SIGNATURE}=", FailureReason.MALFORMED),
    "a line break at the end": (f"{TOKEN}\n", FailureReason.MALFORMED),
    "a space in front": (f" {TOKEN}", FailureReason.MALFORMED),
    "plain base64": (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}+", FailureReason.MALFORMED),
    "letters of another script": (f"{HEAD}.{BODY}.{SIGNATURE[:-1]}\u0430", FailureReason.MALFORMED),
    "a length that base64 never has": (f"{HEAD}.{BODY}.{SIGNATURE}AA", FailureReason.MALFORMED),
    "8,193 characters": (
        f"{HEAD}.{'A' * (8193 - len(HEAD) - len(SIGNATURE) - 2)}.{SIGNATURE}",
        FailureReason.MALFORMED,
    ),
    "another spelling of the last character": (
        f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{chr(ord(SIGNATURE[-1]) + 1)}",
        FailureReason.MALFORMED,
    ),
    # The header
    "a header that is no JSON": (signed("{"), FailureReason.MALFORMED),
    "a header that is an array": (signed("[]"), FailureReason.MALFORMED),
    "a header in UTF-16": (signed(json.dumps(GOOD).encode("utf-16")), FailureReason.MALFORMED),
    "alg given twice": (signed('{"alg":"none","alg":"HS256","kid":"k"}'), FailureReason.MALFORMED),
    "a deep header": (signed('{"kid":' + "[" * 9 + "]" * 9 + "}"), FailureReason.MALFORMED),
    "no kid": (signed({"alg": "HS256"}), FailureReason.MALFORMED),
    "a number as kid": (signed({"alg": "HS256", "kid": 1}), FailureReason.MALFORMED),
    "an empty kid": (signed({"alg": "HS256", "kid": ""}), FailureReason.MALFORMED),
    "a kid with a slash": (signed({"alg": "HS256", "kid": "../k"}), FailureReason.MALFORMED),
    "a kid of 129 characters": (signed({"alg": "HS256", "kid": "k" * 129}), FailureReason.MALFORMED),
    "a kid with a line break": (signed({"alg": "HS256", "kid": "k\n"}), FailureReason.MALFORMED),
    "another typ": (signed({**GOOD, "typ": "at+jwt"}), FailureReason.MALFORMED),
    "typ in two forms": (signed({**GOOD, "typ": "application/application/jwt"}), FailureReason.MALFORMED),
    "typ of another tree": (signed({**GOOD, "typ": "text/jwt"}), FailureReason.MALFORMED),
    "typ in a list": (signed({**GOOD, "typ": ["JWT"]}), FailureReason.MALFORMED),
    "an empty typ": (signed({**GOOD, "typ": ""}), FailureReason.MALFORMED),
    "a null typ": (signed({**GOOD, "typ": None}), FailureReason.MALFORMED),
    **{
        f"the header member {name}": (signed({**GOOD, name: value}), FailureReason.HEADER_MEMBER_FORBIDDEN)
        for name, value in {
            "crit": ["exp"],
            "b64": False,
        }.items()
    },
    # The key
    "an unknown kid": (signed({"alg": "HS256", "kid": "nobody"}), FailureReason.KEY_UNKNOWN),
    "a revoked key": (signed({"alg": "HS256", "kid": "revoked"}), FailureReason.KEY_NOT_IN_FORCE),
    "a key before its time": (signed({"alg": "HS256", "kid": "early"}), FailureReason.KEY_NOT_IN_FORCE),
    "a key after its time": (signed({"alg": "HS256", "kid": "late"}), FailureReason.KEY_NOT_IN_FORCE),
    "a key that cannot be decrypted": (
        signed({"alg": "HS256", "kid": "sealed"}),
        FailureReason.KEY_UNREADABLE,
    ),
    # The algorithm
    "alg none": (signed({"alg": "none", "kid": "k"}), FailureReason.ALGORITHM_MISMATCH),
    "alg NONE": (signed({"alg": "nOnE", "kid": "k"}), FailureReason.ALGORITHM_MISMATCH),
    "no alg": (signed({"kid": "k"}), FailureReason.ALGORITHM_MISMATCH),
    "a list as alg": (signed({"alg": ["HS256"], "kid": "k"}), FailureReason.ALGORITHM_MISMATCH),
    "RS256": (signed({"alg": "RS256", "kid": "k"}), FailureReason.ALGORITHM_MISMATCH),
    "a longer hash than the key's": (
        signed({"alg": "HS512", "kid": "k"}, algorithm="HS512"),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    # The signature
    "another secret": (signed(GOOD, secret=bytes(64)), FailureReason.SIGNATURE_INVALID),
    "a signature of another length": (f"{HEAD}.{BODY}.AAAA", FailureReason.SIGNATURE_INVALID),
    "another payload": (f"{HEAD}.{b64('{}')}.{SIGNATURE}", FailureReason.SIGNATURE_INVALID),
    "the hash of another algorithm": (signed(GOOD, algorithm="HS512"), FailureReason.SIGNATURE_INVALID),
    # The payload of a token with a valid signature
    "a payload that is no JSON": (signed(GOOD, "{"), FailureReason.PAYLOAD_MALFORMED),
    "a payload that is a string": (signed(GOOD, '"a"'), FailureReason.PAYLOAD_MALFORMED),
    "a claim given twice": (signed(GOOD, '{"exp":1,"exp":2}'), FailureReason.PAYLOAD_MALFORMED),
    "a claim of 1e400": (signed(GOOD, '{"exp":1e400}'), FailureReason.PAYLOAD_MALFORMED),
    "a claim with a NUL": (signed(GOOD, r'{"a":"\u0000"}'), FailureReason.PAYLOAD_MALFORMED),
    "a claim with half a pair": (signed(GOOD, r'{"a":"\ud800"}'), FailureReason.PAYLOAD_MALFORMED),
    "a payload in UTF-16": (signed(GOOD, '{"a":1}'.encode("utf-16")), FailureReason.PAYLOAD_MALFORMED),
    "a deep payload": (signed(GOOD, '{"a":' + "[" * 990), FailureReason.PAYLOAD_MALFORMED),
}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts(token: str) -> None:
    verified = verify_jws(token, RING, NOW)
    assert verified.claims == {"a": 1}
    assert verified.key.kid in RING.keys


@pytest.mark.parametrize(("token", "reason"), REJECTED.values(), ids=REJECTED)
def test_rejects(token: str, reason: FailureReason) -> None:
    with pytest.raises(VerificationFailed) as raised:
        verify_jws(token, RING, NOW)
    assert raised.value.reason is reason


def test_repr_contains_no_key_material() -> None:
    assert "material" not in repr(RING)
    assert str(SECRET) not in repr(RING)


def test_each_failure_costs_one_signature_check() -> None:
    """Counts signature checks instead of measuring time."""
    from jwt.algorithms import HMACAlgorithm

    def checks(token: str) -> int:
        seen = 0
        verify = HMACAlgorithm.verify

        def counted(self: HMACAlgorithm, *args: Any) -> bool:
            nonlocal seen
            seen += 1
            return verify(self, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(HMACAlgorithm, "verify", counted)
            with pytest.raises(VerificationFailed):
                verify_jws(token, RING, NOW)
        return seen

    failures = (
        "an unknown kid",
        "a revoked key",
        "alg none",
        "another secret",
        "a key that cannot be decrypted",
    )
    assert {name: checks(REJECTED[name][0]) for name in failures} == dict.fromkeys(failures, 1)


# What is counted


@dataclass
class Context:
    kid: str | None = None
    key_id: int | None = None
    token_age: float | None = None


def verify_with_context(token: str) -> Context:
    context = Context()
    reset = log_context.set(context)
    try:
        verify_jws(token, RING, NOW)
    except VerificationFailed:
        pass
    finally:
        log_context.reset(reset)
    return context


def test_the_key_of_a_valid_signature_is_recorded() -> None:
    assert verify_with_context(signed(GOOD)) == Context("k", 1, None)


@pytest.mark.parametrize("kid", ["revoked", "early", "late"])
def test_a_key_that_is_not_in_force_is_recorded_if_the_signature_is_valid(kid: str) -> None:
    assert verify_with_context(signed({"alg": "HS256", "kid": kid})) == Context(kid, 1, None)


@pytest.mark.parametrize(
    "token",
    [
        signed({"alg": "HS256", "kid": "k"}, secret=b"x" * 32),
        signed({"alg": "HS256", "kid": "revoked"}, secret=b"x" * 32),
        signed({"alg": "HS256", "kid": "sealed"}),
        # The keys that are used in place of an unknown one are not recorded either.
        signed({"alg": "HS256", "kid": "nobody"}, secret=bytes(range(32))),
    ],
    ids=["another secret", "another secret, and revoked", "not readable", "unknown"],
)
def test_no_key_is_recorded_without_a_valid_signature(token: str) -> None:
    context = verify_with_context(token)
    assert context.kid
    assert (context.key_id, context.token_age) == (None, None)


@pytest.mark.parametrize(
    ("issued_at", "age"),
    [
        (NOW - 5, 5.0),
        (int(NOW) + 30, -30.0),
        (NOW + 0.25, -0.25),
        (0, NOW),
        ("1800000000", None),
        (True, None),
        (None, None),
        ([], None),
        (2**53, None),
        (-(2**53), None),
        (10**400, None),
        (1e300, None),
    ],
    ids=repr,
)
def test_the_age_of_a_token_is_recorded(issued_at: Any, age: float | None) -> None:
    context = verify_with_context(signed(GOOD, json.dumps({"iat": issued_at})))
    assert context == Context("k", 1, age)
