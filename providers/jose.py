"""Strict verification of a compact JWS: PyJWT checks the signature, this module the rest of RFC 8725."""

import re
from binascii import a2b_base64
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, get_default_algorithms

from providers.contract import (
    PARAMETER_MAX_LENGTH,
    FailureReason,
    KeyRing,
    Step,
    TrustedKey,
    VerificationFailed,
    log_context,
)
from providers.strict_json import NotStrictJSON, parse

HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The HMAC algorithms, with the minimum length of the secret in bytes (RFC 7518, section 3.2)."""

PUBLIC_KEY_TYPES: dict[str, type] = {
    "RS256": RSAPublicKey,
    "PS256": RSAPublicKey,
    "ES256": EllipticCurvePublicKey,
    "EdDSA": Ed25519PublicKey,
}
"""The public-key algorithms (RFC 7518, sections 3.3 to 3.5; RFC 8037, section 3.1), with the key type."""

STEPS = (Step.FORM, Step.KEY, Step.ALGORITHM, Step.KEY_STATE, Step.SIGNATURE, Step.PAYLOAD)
"""Of `verify_jws`, for `Strategy.steps`."""

KID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
EXTERNAL_KID = re.compile("[!-~]{1,128}")
"""A key ID from outside AGS: some identity providers use base64."""

_MAX_DATE = 2.0**53
"""An `iat` from here on is no time: the difference to another time would be inexact, or overflow."""

_CRITICAL = frozenset({"crit", "b64"})  # these change the meaning of a token (RFC 7515, 4.1.11; RFC 7797)
_COMPACT = re.compile(r"[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++\.[A-Za-z0-9_-]++")
_PART_DEPTH = 8
_BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_LAST_CHARACTERS = ("", "", _BASE64URL[::16], _BASE64URL[::4])
"""Valid last characters, whose 4 or 2 spare bits are zero, by the length modulo 4."""

_PADDING = (b"", b"", b"==", b"=")
_TO_BASE64 = bytes.maketrans(b"-_+/=", b"+/   ")
_MATERIAL_TYPES: dict[str, type] = {**dict.fromkeys(HMAC_BYTES, bytes), **PUBLIC_KEY_TYPES}
_ALGORITHMS = {name: get_default_algorithms()[name] for name in _MATERIAL_TYPES}

# An unknown kid costs the same signature check as a known one, so that the time reveals nothing.
_DUMMY_KEY = TrustedKey(id=None, kid="", algorithm="HS256", material=bytes(range(32)))


@dataclass(slots=True)
class _NoContext:
    """The log context outside of requests of the API: nobody reads it."""

    kid: str | None = None
    key_id: int | None = None
    token_age: float | None = None


@dataclass(frozen=True, slots=True)
class VerifiedJWS:
    """The claims of a JWS with a valid signature, and the key that it was verified with."""

    key: TrustedKey
    claims: dict[str, Any]


def verify_jws(
    token: str,
    keys: KeyRing,
    now: float,
    *,
    media_type: str = "JWT",
    kid_pattern: re.Pattern[str] = KID,
) -> VerifiedJWS:
    """Return the claims of `token` if a key of the key ring has signed it. `now`: seconds since the epoch.

    `typ` in the header must be `media_type`; the default is JWT. `kid` must match `kid_pattern`. `crit` and
    `b64` are rejected. All other members, such as `jwk` and `jku`, are ignored (RFC 7515, section 4).

    Raises `VerificationFailed` with a reason that means "not authenticated", or with PAYLOAD_MALFORMED if the
    signature is valid and the payload is not a strict JSON object.
    """
    if len(token) > PARAMETER_MAX_LENGTH or not _COMPACT.fullmatch(token):
        raise VerificationFailed(FailureReason.MALFORMED, problem="it is not a compact JWS")
    raw_header, payload, signature = map(_decode_part, token.split("."))
    header = _parse_object(raw_header, FailureReason.MALFORMED)
    if not _CRITICAL.isdisjoint(header):
        raise VerificationFailed(
            FailureReason.HEADER_MEMBER_FORBIDDEN, members=sorted(_CRITICAL & header.keys())
        )
    kid = header.get("kid")
    typ = header.get("typ", "JWT")
    is_expected_type = typ == media_type or _is_same_type(typ, media_type)
    if not is_expected_type or not isinstance(kid, str) or not kid_pattern.fullmatch(kid):
        member = "kid" if is_expected_type else "typ"
        problem = f"{member} in its header is {'not accepted' if member in header else 'missing'}"
        raise VerificationFailed(FailureReason.MALFORMED, problem=problem)

    key = keys.get(kid)
    used_key = next(k for k in (key, keys.dummy_key, _DUMMY_KEY) if k is not None and _is_usable(k))
    signed = token.rpartition(".")[0].encode("ascii")
    is_valid = _ALGORITHMS[used_key.algorithm].verify(signed, used_key.material, signature)
    context = log_context.get() or _NoContext()
    context.kid = kid
    context.key_id, context.token_age = used_key.id if is_valid and used_key is key else None, None
    if key is None:
        raise VerificationFailed(FailureReason.KEY_UNKNOWN, alg=header.get("alg"))
    if header.get("alg") != key.algorithm:
        raise VerificationFailed(
            FailureReason.ALGORITHM_MISMATCH, alg=header.get("alg"), key_alg=key.algorithm
        )
    if (reason := key.failure_reason(now)) is not None:
        raise VerificationFailed(reason, alg=key.algorithm, **_validity_facts(key, now))
    if used_key is not key:
        raise VerificationFailed(FailureReason.KEY_UNREADABLE, alg=key.algorithm)
    if not is_valid:
        raise VerificationFailed(FailureReason.SIGNATURE_INVALID, alg=key.algorithm)
    claims = _parse_object(payload, FailureReason.PAYLOAD_MALFORMED)
    context.token_age = _age(claims.get("iat"), now)
    return VerifiedJWS(key, claims)


def _age(issued_at: Any, now: float) -> float | None:
    is_time = type(issued_at) in (int, float) and abs(issued_at) < _MAX_DATE
    return now - issued_at if is_time else None


def _validity_facts(key: TrustedKey, now: float) -> dict[str, Any]:
    times = {"not_before": key.not_before, "not_after": key.not_after}
    return {name: time - now for name, time in times.items() if time is not None}


def decode_base64url(part: str) -> bytes:
    """Decode canonical base64url (RFC 4648, section 3.5). Raises ValueError."""
    remainder = len(part) % 4
    if remainder and part[-1] not in _LAST_CHARACTERS[remainder]:
        raise ValueError("not canonical base64url")
    # Strict mode rejects characters outside the alphabet, such as the spaces of `_TO_BASE64`.
    return a2b_base64(part.encode("ascii").translate(_TO_BASE64) + _PADDING[remainder], strict_mode=True)


def public_jwk(key: EllipticCurvePublicKey, kid: str) -> dict[str, Any]:
    """Return the JWK of a key that verifies ES256 signatures (RFC 7517; RFC 7518, section 6.2.1)."""
    return {**ECAlgorithm.to_jwk(key, as_dict=True), "use": "sig", "alg": "ES256", "kid": kid}


def _is_same_type(typ: Any, media_type: str) -> bool:
    """Compare media types case-insensitively; "application/" may be omitted (RFC 7515, section 4.1.9)."""
    if not isinstance(typ, str) or not typ.isascii():
        return False
    one, other = (name.lower().removeprefix("application/") for name in (typ, media_type))
    return one == other


def _is_usable(key: TrustedKey) -> bool:
    """Return False for an unknown algorithm, or a secret that cannot be decrypted."""
    return isinstance(key.material, _MATERIAL_TYPES.get(key.algorithm, ()))


def _decode_part(part: str) -> bytes:
    try:
        return decode_base64url(part)
    except ValueError:
        raise VerificationFailed(FailureReason.MALFORMED, problem="a part of it is not base64url") from None


def _parse_object(raw: bytes, reason: FailureReason) -> dict[str, Any]:
    try:
        value = parse(raw, _PART_DEPTH)
    except NotStrictJSON as error:
        raise VerificationFailed(reason, problem=str(error)) from None
    if not isinstance(value, dict):
        raise VerificationFailed(reason, problem="it is not a JSON object")
    return value
