"""The strict gate in front of the JWT library, shared by all providers that are handed a compact JWS.

PyJWT answers one question here, whether the signature is right. Everything that RFC 8725 asks of a verifier
beside that is decided on this page, in this order, before a claim is believed.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import get_default_algorithms

from providers.contract import PARAMETER_MAX_LENGTH, FailureReason, KeyRing, TrustedKey, VerificationFailed
from providers.strict_json import NotStrictJSON, parse

HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The algorithms of a shared secret, with the least bytes that it has (RFC 7518, section 3.2)."""

PUBLIC_KEYS: dict[str, type] = {
    "RS256": RSAPublicKey,
    "PS256": RSAPublicKey,
    "ES256": EllipticCurvePublicKey,
    "EdDSA": Ed25519PublicKey,
}
"""The algorithms of a public key (RFC 7518, sections 3.3 to 3.5; RFC 8037, section 3.1), with its type."""

KID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
FOREIGN_KID = re.compile("[!-~]{1,128}")
"""A key ID that somebody else has given: some identity providers write them in base64."""

_CRITICAL = frozenset({"crit", "b64"})
"""Header members that change what a token means to those that know them (RFC 7515, 4.1.11; RFC 7797)."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++")
_PART_DEPTH = 8
_BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST_CHARACTERS = ("", "", _BASE64URL[::16], _BASE64URL[::4])
"""Those whose spare bits, 4 or 2, are zero, by the length modulo 4. At 0 there are none; 1 is no length."""

_PADDING = (b"", b"", b"==", b"=")
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/   ")
_MATERIAL: dict[str, type] = {**dict.fromkeys(HMAC_BYTES, bytes), **PUBLIC_KEYS}
_ALGORITHMS = {name: get_default_algorithms()[name] for name in _MATERIAL}

# An unknown kid costs the same signature check as a known one, so that time tells nothing.
_NOBODY = TrustedKey(id=None, kid="", algorithm="HS256", material=bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Proven:
    """The claims of a JWS whose signature holds, and the key that made it."""

    key: TrustedKey
    claims: dict[str, Any]


def prove(
    token: str,
    keys: KeyRing,
    now: float,
    *,
    media_type: str = "JWT",
    kids: re.Pattern[str] = KID,
) -> Proven:
    """Return the claims of `token` if a key of the ring signed it. `now` is in seconds since the epoch.

    The header's `typ` must be `media_type`; an absent one counts as JWT. The `kid` must be of the form
    `kids`. `crit` and `b64` are refused; all other members, such as `jwk` and `jku`, are ignored and never
    used (RFC 7515, section 4).

    Raises `VerificationFailed` with one of the refusals that come before a signature is proven, or with
    PAYLOAD_MALFORMED when the signature holds over something that is no strict JSON object.
    """
    if len(token) > PARAMETER_MAX_LENGTH or not _COMPACT.fullmatch(token):
        raise VerificationFailed(FailureReason.MALFORMED)
    header_part, payload_part, signature_part = token.split(".")
    header = _object(_part(header_part), FailureReason.MALFORMED)
    payload = _part(payload_part)
    signature = _part(signature_part)
    if not _CRITICAL.isdisjoint(header):
        raise VerificationFailed(FailureReason.HEADER_MEMBER_FORBIDDEN)
    kid = header.get("kid")
    typ = header.get("typ", "JWT")
    is_right_type = typ == media_type or _is_same_type(typ, media_type)
    if not is_right_type or not isinstance(kid, str) or not kids.fullmatch(kid):
        raise VerificationFailed(FailureReason.MALFORMED)

    key = keys.get(kid)
    judge = next(one for one in (key, keys.dummy_key, _NOBODY) if one is not None and _is_whole(one))
    signed = f"{header_part}.{payload_part}".encode("ascii")
    holds = _ALGORITHMS[judge.algorithm].verify(signed, judge.material, signature)
    if key is None:
        raise VerificationFailed(FailureReason.KEY_UNKNOWN)
    if header.get("alg") != key.algorithm:
        raise VerificationFailed(FailureReason.ALGORITHM_MISMATCH)
    if (unusable := key.failure_reason(now)) is not None:
        raise VerificationFailed(unusable)
    if judge is not key:
        raise VerificationFailed(FailureReason.KEY_UNREADABLE)
    if not holds:
        raise VerificationFailed(FailureReason.SIGNATURE_INVALID)
    return Proven(key, _object(payload, FailureReason.PAYLOAD_MALFORMED))


def canonical(part: str) -> bytes:
    """Decode base64url and insist on the one spelling that RFC 4648 section 3.5 calls canonical.

    Raises ValueError.
    """
    remainder = len(part) % 4
    if remainder and part[-1] not in _LAST_CHARACTERS[remainder]:
        raise ValueError("not the canonical spelling")
    # Strict mode refuses whatever is not in the alphabet, and so the spaces of `_TO_BASE64`.
    return a2b_base64(part.encode("ascii").translate(_TO_BASE64) + _PADDING[remainder], strict_mode=True)


def _is_same_type(typ: Any, media_type: str) -> bool:
    """Compare media types without case; "application/" may be left out (RFC 7515, section 4.1.9)."""
    if not isinstance(typ, str) or not typ.isascii():
        return False
    one, other = (name.lower().removeprefix("application/") for name in (typ, media_type))
    return one == other


def _is_whole(key: TrustedKey) -> bool:
    """Whether its material is what its algorithm works with.

    A row may hold an algorithm that this version does not know, or a secret that does not open.
    """
    return isinstance(key.material, _MATERIAL.get(key.algorithm, ()))


def _part(part: str) -> bytes:
    try:
        return canonical(part)
    except ValueError:
        raise VerificationFailed(FailureReason.MALFORMED) from None


def _object(raw: bytes, otherwise: FailureReason) -> dict[str, Any]:
    try:
        value = parse(raw, _PART_DEPTH)
    except NotStrictJSON:
        raise VerificationFailed(otherwise) from None
    if not isinstance(value, dict):
        raise VerificationFailed(otherwise)
    return value
