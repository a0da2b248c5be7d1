"""One public key: the rules for a usable key, and its form as a JWK (RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from providers.contract import TrustedKey
from providers.jose import EXTERNAL_KID, PUBLIC_KEYS, canonical
from providers.jwks.strength import RSA_BITS, Unusable, demand_strength

_COORDINATE = 32
_SECRETS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def key_of(jwk: Any, algorithms: Sequence[str]) -> TrustedKey:
    """Return the key in a JWK, which must be for one of the `algorithms`. Raises `Unusable`."""
    if not isinstance(jwk, dict):
        raise Unusable("not written as a JSON object")
    jwk = _given(jwk)
    if is_secret(jwk):
        raise Unusable("private or shared, which must not be published")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not EXTERNAL_KID.fullmatch(kid):
        raise Unusable("without a kid of 1 to 128 letters, digits and . _ : -")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise Unusable("not for signatures")
    return trusted(kid, _material(jwk), jwk.get("alg"), algorithms)


def is_secret(jwk: Mapping[str, Any]) -> bool:
    """Return whether a JWK contains secret members (RFC 7518, sections 6.2.2, 6.3.2 and 6.4)."""
    return jwk.get("kty") == "oct" or not _given(jwk).keys().isdisjoint(_SECRETS)


def _given(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members that are set: some libraries write null or [] for unset members."""
    return {name: value for name, value in jwk.items() if value is not None and value != []}


def trusted(kid: str, material: Any, algorithm: Any, algorithms: Sequence[str]) -> TrustedKey:
    """Return a key with its algorithm: the one in `alg`, or else the only allowed one that fits.

    Raises `Unusable`.
    """
    demand_strength(material)
    fitting = [name for name in algorithms if isinstance(material, PUBLIC_KEYS[name])]
    if algorithm is not None:
        fitting = [name for name in fitting if name == algorithm]
    if not fitting:
        raise Unusable("for none of the algorithms that the service allows")
    if len(fitting) > 1:
        raise Unusable(f"without alg, for the service allows {' and '.join(fitting)}")
    return TrustedKey(id=None, kid=kid, algorithm=fitting[0], material=material)


def _material(jwk: Mapping[str, Any]) -> Any:
    """Return the public key of a JWK (RFC 7518, sections 6.2.1 and 6.3.1; RFC 8037, section 2)."""
    try:
        match jwk:
            case {"kty": "RSA"}:
                e, n = (_number(jwk, member, RSA_BITS[-1] // 8) for member in "en")
                return RSAPublicNumbers(e, n).public_key()
            case {"kty": "EC", "crv": "P-256"}:
                x, y = (_number(jwk, member, _COORDINATE) for member in "xy")
                return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
            case {"kty": "OKP", "crv": "Ed25519"}:
                return Ed25519PublicKey.from_public_bytes(_octets(jwk, "x"))
    except (ValueError, UnsupportedAlgorithm):
        raise Unusable("with malformed members") from None
    raise Unusable("of another kind than RSA, EC with P-256, and OKP with Ed25519")


def _octets(jwk: Mapping[str, Any], member: str) -> bytes:
    match jwk.get(member):
        case str(text):
            return canonical(text)
    raise ValueError(member)


def _number(jwk: Mapping[str, Any], member: str, octets_at_most: int) -> int:
    """Return a number. Some libraries add a leading zero octet, or omit those of a coordinate."""
    octets = _octets(jwk, member)
    if not octets or len(octets.lstrip(b"\0")) > octets_at_most:
        raise ValueError(member)
    return int.from_bytes(octets)
