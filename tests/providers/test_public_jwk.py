"""The JWK of a public key, as the JWK set of a tenant contains it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from providers.jose import decode_base64url, public_jwk


@pytest.mark.parametrize(
    "private_value", [1, 379, 43], ids=["any", "x begins with zeros", "y begins with zeros"]
)
def test_coordinates_have_32_bytes(private_value: int) -> None:
    """As RFC 7518, section 6.2.1.2, requires for P-256."""
    key = ec.derive_private_key(private_value, ec.SECP256R1()).public_key()
    jwk = public_jwk(key, "key-1")
    coordinates = {name: decode_base64url(jwk.pop(name)) for name in ("x", "y")}
    assert jwk == {"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "key-1"}
    assert {len(coordinate) for coordinate in coordinates.values()} == {32}
    numbers = {name: int.from_bytes(coordinate, "big") for name, coordinate in coordinates.items()}
    assert ec.EllipticCurvePublicNumbers(**numbers, curve=ec.SECP256R1()) == key.public_numbers()
