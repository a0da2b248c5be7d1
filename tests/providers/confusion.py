"""Tokens that take one algorithm or one key for another: what no provider with public keys may fall for.

Each is made of claims that are good, for a service that trusts `KEY_SET`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from providers.contract import FailureReason
from tests.upstream.signer import ABSENT, shared, signer, token

RSA, EC, OKP = signer("RS256"), signer("ES256"), signer("EdDSA")
PSS = signer("PS256")
KEY_SET = {"keys": [key.jwk() for key in (RSA, EC, OKP, PSS)]}
ALGORITHMS = ["RS256", "PS256", "ES256", "EdDSA"]
OTHER_EC, OTHER_RSA = signer("ES256", "x"), signer("RS256", "x")

_ORDER = bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551")


def _said(algorithm: Any, kid: str, sign: Callable[[bytes], bytes]) -> Callable[[Any], str]:
    """Makes a token whose header says so, whoever signs it."""
    return lambda claims: token({"alg": algorithm, "kid": kid}, claims, sign)


def _der(signed: bytes) -> bytes:
    return EC.private.sign(signed, ec.ECDSA(hashes.SHA256()))


ALGORITHM: dict[str, tuple[Callable[[Any], str], FailureReason]] = {
    "none": (_said("none", "RS256", lambda _: b"\0"), FailureReason.ALGORITHM_MISMATCH),
    "none, signed right": (lambda claims: RSA.token(claims, alg="none"), FailureReason.ALGORITHM_MISMATCH),
    "None in another spelling": (_said("nOnE", "ES256", EC.signature), FailureReason.ALGORITHM_MISMATCH),
    "no alg": (lambda claims: RSA.token(claims, alg=ABSENT), FailureReason.ALGORITHM_MISMATCH),
    "alg in a list": (_said(["RS256"], "RS256", RSA.signature), FailureReason.ALGORITHM_MISMATCH),
    "HS256 with the public key": (
        _said("HS256", "RS256", shared(RSA.pem.encode())),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 with the JWK": (
        _said("HS256", "ES256", shared(json.dumps(EC.jwk()).encode())),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "HS256 with nothing": (_said("HS256", "RS256", shared(b"")), FailureReason.ALGORITHM_MISMATCH),
    "HS256 called RS256": (
        _said("RS256", "RS256", shared(RSA.pem.encode())),
        FailureReason.SIGNATURE_INVALID,
    ),
    "PS256 with a key of RS256": (
        _said("PS256", "RS256", lambda signed: RSA.signature(signed, "PS256")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256 with a key of PS256": (
        _said("RS256", "PS256", lambda signed: PSS.signature(signed, "RS256")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "PS256 called RS256": (
        _said("RS256", "RS256", lambda signed: RSA.signature(signed, "PS256")),
        FailureReason.SIGNATURE_INVALID,
    ),
    "RS256 called PS256": (
        _said("PS256", "PS256", lambda signed: PSS.signature(signed, "RS256")),
        FailureReason.SIGNATURE_INVALID,
    ),
    "RS512 with a key of RS256": (
        _said("RS512", "RS256", lambda signed: RSA.signature(signed, "RS512")),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "RS256 under the ID of an EC key": (
        _said("RS256", "ES256", RSA.signature),
        FailureReason.ALGORITHM_MISMATCH,
    ),
    "ES256 called RS256": (_said("RS256", "ES256", EC.signature), FailureReason.ALGORITHM_MISMATCH),
    "ES256 in DER": (_said("ES256", "ES256", _der), FailureReason.SIGNATURE_INVALID),
    "ES256 of zeros": (_said("ES256", "ES256", lambda _: bytes(64)), FailureReason.SIGNATURE_INVALID),
    "ES256 with the order of the curve as s": (
        _said("ES256", "ES256", lambda signed: EC.signature(signed)[:32] + _ORDER),
        FailureReason.SIGNATURE_INVALID,
    ),
    "ES256 with a zero in front": (
        _said("ES256", "ES256", lambda signed: b"\0" + EC.signature(signed)),
        FailureReason.SIGNATURE_INVALID,
    ),
    "EdDSA of zeros": (_said("EdDSA", "EdDSA", lambda _: bytes(64)), FailureReason.SIGNATURE_INVALID),
}

KEY: dict[str, tuple[Callable[[Any], str], FailureReason]] = {
    "a stranger's key": (_said("RS256", "RS256", OTHER_RSA.signature), FailureReason.SIGNATURE_INVALID),
    "a stranger's key under its own ID": (OTHER_RSA.token, FailureReason.KEY_UNKNOWN),
    "the key of another ID": (_said("ES256", "x", EC.signature), FailureReason.KEY_UNKNOWN),
    "a key ID that is a path": (_said("ES256", "../ES256", EC.signature), FailureReason.KEY_UNKNOWN),
    "the tenant's own shared key": (
        _said("HS256", "k", shared(bytes(range(32)))),
        FailureReason.KEY_UNKNOWN,
    ),
    **{
        f"a key that comes along as {member}": (
            lambda claims, member=member, brought=brought: OTHER_EC.token(
                claims, kid="ES256", **{member: brought}
            ),
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
