"""Algorithm and key confusion: tokens that every provider with public keys must reject.

The claims are valid. The service trusts `KEY_SET`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from providers.contract import FailureReason
from tests.support.upstream.signer import ABSENT, sign_with_secret, signer, token

RSA, EC, OKP = signer("RS256"), signer("ES256"), signer("EdDSA")
PSS = signer("PS256")
KEY_SET = {"keys": [key.jwk() for key in (RSA, EC, OKP, PSS)]}
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
OTHER_EC, OTHER_RSA = signer("ES256", "x"), signer("RS256", "x")

_ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")


def _token_with_header(algorithm: Any, kid: str, sign: Callable[[bytes], bytes]) -> Callable[[Any], str]:
    """Return a function that creates a token with this header, signed by `sign`."""
    return lambda claims: token({"alg": algorithm, "kid": kid}, claims, sign)


def _der(signed: bytes) -> bytes:
    return EC.private.sign(signed, ec.ECDSA(hashes.SHA256()))


ALGORITHM: dict[str, tuple[Callable[[Any], str], FailureReason]] = {
    "none": (_token_with_header("none", "RS256", lambda _: b"\0"), FailureReason.ALGORITHM_MISMATCH),
    "none, with a valid signature": (
        lambda claims: RSA.token(claims, alg="none"),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "none in mixed case": (
        _token_with_header("nOnE", "ES256", EC.signature),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "no alg": (lambda claims: RSA.token(claims, alg=ABSENT), FailureReason.ALGORITHM_MISMATCH),
    "alg in a list": (
        _token_with_header(["RS256"], "RS256", RSA.signature),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 with the public key": (
        _token_with_header("HS256", "RS256", sign_with_secret(RSA.pem.encode())),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 with the JWK": (
        _token_with_header("HS256", "ES256", sign_with_secret(json.dumps(EC.jwk()).encode())),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 with an empty secret": (
        _token_with_header("HS256", "RS256", sign_with_secret(b"")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 declared as RS256": (
        _token_with_header("RS256", "RS256", sign_with_secret(RSA.pem.encode())),
        FailureReason.SIGNATURE_INVALID,
    ),
    "PS256 with a key of RS256": (
        _token_with_header("PS256", "RS256", lambda signed: RSA.signature(signed, "PS256")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256 with a key of PS256": (
        _token_with_header("RS256", "PS256", lambda signed: PSS.signature(signed, "RS256")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "PS256 declared as RS256": (
        _token_with_header("RS256", "RS256", lambda signed: RSA.signature(signed, "PS256")),
        FailureReason.SIGNATURE_INVALID,
    ),
    "RS256 declared as PS256": (
        _token_with_header("PS256", "PS256", lambda signed: PSS.signature(signed, "RS256")),
        FailureReason.SIGNATURE_INVALID,
    ),
    "RS512 with a key of RS256": (
        _token_with_header("RS512", "RS256", lambda signed: RSA.signature(signed, "RS512")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256 under the ID of an EC key": (
        _token_with_header("RS256", "ES256", RSA.signature),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "ES256 declared as RS256": (
        _token_with_header("RS256", "ES256", EC.signature),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "ES256 in DER": (_token_with_header("ES256", "ES256", _der), FailureReason.SIGNATURE_INVALID),
    "ES256 of zeros": (
        _token_with_header("ES256", "ES256", lambda _: bytes(64)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "ES256 with the order of the curve as s": (
        _token_with_header("ES256", "ES256", lambda signed: EC.signature(signed)[:32] + _ORDER),
        FailureReason.SIGNATURE_INVALID,
    ),
    "ES256 with a leading zero": (
        _token_with_header("ES256", "ES256", lambda signed: b"\0" + EC.signature(signed)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "EdDSA of zeros": (
        _token_with_header("EdDSA", "EdDSA", lambda _: bytes(64)),
        FailureReason.SIGNATURE_INVALID,
    ),
}

KEY: dict[str, tuple[Callable[[Any], str], FailureReason]] = {
    "another key": (
        _token_with_header("RS256", "RS256", OTHER_RSA.signature),
        FailureReason.SIGNATURE_INVALID,
    ),
    "another key under its own ID": (OTHER_RSA.token, FailureReason.KEY_UNKNOWN),
    "the key of another ID": (_token_with_header("ES256", "x", EC.signature), FailureReason.KEY_UNKNOWN),
    "a key ID that is a path": (
        _token_with_header("ES256", "../ES256", EC.signature),
        FailureReason.KEY_UNKNOWN,
    ),
    "the tenant's own shared key": (
        _token_with_header("HS256", "k", sign_with_secret(bytes(range(32)))),
        FailureReason.KEY_UNKNOWN,
    ),
    **{
        f"a key in the header member {member}": (
            partial(OTHER_EC.token, kid="ES256", **{member: brought}),
            FailureReason.SIGNATURE_INVALID,
        )
        for member, brought in {
            "jwk": OTHER_EC.jwk(kid="ES256"),
            "jku": "https://evil.example/keys",
            "x5u": "https://evil.example/certificate",
            "x5c": [OTHER_EC.certificate],
        }.items()
    },
}

CONFUSED = ALGORITHM | KEY
