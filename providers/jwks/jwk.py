"""Parsing of one JWK (RFC 7517), and the rules for usable public keys."""

from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

from providers.contract import TrustedKey
from providers.jose import EXTERNAL_KID, PUBLIC_KEY_TYPES, decode_base64url
from providers.jwks.strength import RSA_BITS, UnusableKey, check_strength

_COORDINATE_OCTETS = 32
_SECRET_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})


def parse_jwk(jwk: Any, algorithms: Sequence[str]) -> TrustedKey:
    """Return the key of a JWK, which must be for one of `algorithms`. Raises `UnusableKey`."""
    if not isinstance(jwk, dict):
        raise UnusableKey("that is not a JSON object")
    jwk = _set_members(jwk)
    if is_secret(jwk):
        raise UnusableKey("that is private or shared and must not be published")
    kid = jwk.get("kid")
    if not isinstance(kid, str) or not EXTERNAL_KID.fullmatch(kid):
        raise UnusableKey("without a kid of 1 to 128 visible ASCII characters")
    operations = jwk.get("key_ops", ["verify"])
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("not for signatures")
    return create_trusted_key(kid, _parse_public_key(jwk), jwk.get("alg"), algorithms)


def is_secret(jwk: Mapping[str, Any]) -> bool:
    """Return True if a JWK is symmetric or has secret members (RFC 7518, sections 6.2.2, 6.3.2 and 6.4)."""
    return jwk.get("kty") == "oct" or not _set_members(jwk).keys().isdisjoint(_SECRET_MEMBERS)


def _set_members(jwk: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members without null and []: some libraries write these for unset members."""
    return {name: value for name, value in jwk.items() if value is not None and value != []}


def create_trusted_key(kid: str, material: Any, algorithm: Any, algorithms: Sequence[str]) -> TrustedKey:
    """Return a key for `algorithm`, or if that is None, for the only one of `algorithms` with its key type.

    Raises `UnusableKey`.
    """
    check_strength(material)
    candidates = algorithms if algorithm is None else [name for name in algorithms if name == algorithm]
    matching = [name for name in candidates if isinstance(material, PUBLIC_KEY_TYPES[name])]
    if not matching:
        raise UnusableKey("for none of the algorithms that the service allows")
    if len(matching) > 1:
        raise UnusableKey(f"without alg, although the service allows {' and '.join(matching)}")
    return TrustedKey(id=None, kid=kid, algorithm=matching[0], material=material)


def _parse_public_key(jwk: Mapping[str, Any]) -> Any:
    """Return the public key of a JWK (RFC 7518, sections 6.2.1 and 6.3.1; RFC 8037, section 2)."""
    try:
        match jwk:
            case {"kty": "RSA"}:
                e, n = (_decode_number(jwk, member, RSA_BITS[-1] // 8) for member in "en")
                return RSAPublicNumbers(e, n).public_key()
            case {"kty": "EC", "crv": "P-256"}:
                x, y = (_decode_number(jwk, member, _COORDINATE_OCTETS) for member in "xy")
                return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
            case {"kty": "OKP", "crv": "Ed25519"}:
                return Ed25519PublicKey.from_public_bytes(_decode_octets(jwk, "x"))
    except (ValueError, UnsupportedAlgorithm):
        raise UnusableKey("with malformed members") from None
    raise UnusableKey("that is not RSA, EC with P-256, or OKP with Ed25519")


def _decode_octets(jwk: Mapping[str, Any], member: str) -> bytes:
    match jwk.get(member):
        case str(text):
            return decode_base64url(text)
    raise ValueError(member)


def _decode_number(jwk: Mapping[str, Any], member: str, max_octets: int) -> int:
    """Return a number. Some libraries add a leading zero octet, or omit those of a coordinate."""
    octets = _decode_octets(jwk, member)
    if not octets or len(octets.lstrip(b"\0")) > max_octets:
        raise ValueError(member)
    return int.from_bytes(octets)
