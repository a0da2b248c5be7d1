"""The strict gate in front of the JWT library, shared by all providers that are handed a compact JWS.

PyJWT answers one question here, whether the signature is right. Everything that RFC 8725 asks of a verifier
beside that is decided on this page, in this order, before a claim is believed.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from typing import Any

from jwt.algorithms import get_default_algorithms

from providers.contract import PARAMETER_MAX_LENGTH, KeyRing, Refusal, Refused, TrustedKey
from providers.strict_json import NotStrictJSON, parse

HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
"""The algorithms that a trusted key may have, with the least bytes of its secret (RFC 7518, section 3.2)."""

KID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})
_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_PART_DEPTH = 8
_ALGORITHMS = {name: get_default_algorithms()[name] for name in (*HMAC_BYTES, "ES256")}

# An unknown kid costs the same signature check as a known one, so that time tells nothing.
_NOBODY = TrustedKey(id=None, kid="", algorithm="HS256", material=bytes(range(32)))


@dataclass(frozen=True, slots=True)
class Proven:
    """The claims of a JWS whose signature holds, and the key that made it."""

    key: TrustedKey
    claims: dict[str, Any]


def prove(token: str, keys: KeyRing, now: float) -> Proven:
    """Return the claims of `token` if a key of the ring signed it. `now` is in seconds since the epoch.

    Raises `Refused` with one of the refusals that come before a signature is proven, or with
    PAYLOAD_MALFORMED when the signature holds over something that is no strict JSON object.
    """
    if len(token) > PARAMETER_MAX_LENGTH or not _COMPACT.fullmatch(token):
        raise Refused(Refusal.MALFORMED)
    header_part, payload_part, signature_part = token.split(".")
    header = _object(_canonical(header_part), Refusal.MALFORMED)
    payload = _canonical(payload_part)
    signature = _canonical(signature_part)
    if not header.keys() <= HEADER_MEMBERS:
        raise Refused(Refusal.HEADER_MEMBER_FORBIDDEN)
    kid = header.get("kid")
    if header.get("typ", "JWT") != "JWT" or not isinstance(kid, str) or not KID.fullmatch(kid):
        raise Refused(Refusal.MALFORMED)

    known = keys.get(kid)
    key = known or _NOBODY
    material = key.material or _NOBODY.material
    signed = f"{header_part}.{payload_part}".encode("ascii")
    # A row may hold an algorithm that this version does not know; its key is not in force then.
    algorithm = _ALGORITHMS.get(key.algorithm, _ALGORITHMS[_NOBODY.algorithm])
    holds = algorithm.verify(signed, material, signature)
    if known is None:
        raise Refused(Refusal.KEY_UNKNOWN)
    if header.get("alg") != key.algorithm:
        raise Refused(Refusal.ALGORITHM_MISMATCH)
    if (unusable := key.refusal(now)) is not None:
        raise Refused(unusable)
    if not holds:
        raise Refused(Refusal.SIGNATURE_INVALID)
    return Proven(key, _object(payload, Refusal.PAYLOAD_MALFORMED))


def _canonical(part: str) -> bytes:
    """Decode base64url and insist on the one spelling that RFC 4648 section 3.5 calls canonical."""
    try:
        raw = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise Refused(Refusal.MALFORMED) from None
    if urlsafe_b64encode(raw).rstrip(b"=") != part.encode("ascii"):
        raise Refused(Refusal.MALFORMED)
    return raw


def _object(raw: bytes, otherwise: Refusal) -> dict[str, Any]:
    try:
        value = parse(raw, _PART_DEPTH)
    except NotStrictJSON:
        raise Refused(otherwise) from None
    if not isinstance(value, dict):
        raise Refused(otherwise)
    return value
