"""Checks that only the owner of the private key can sign."""

from math import gcd, isqrt, prod
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey, RSAPublicNumbers

RSA_BITS = range(2048, 8192 + 1)
_RSA_EXPONENTS = range(3, 2**32, 2)
_FACTORS_BELOW = 4096
_SMALL_PRIMES = prod(n for n in range(2, _FACTORS_BELOW) if all(n % d for d in range(2, isqrt(n) + 1)))


class UnusableKey(ValueError):
    """A key cannot be used. The message continues a sentence that begins with "a key"."""


def check_strength(material: Any) -> None:
    """Raise `UnusableKey` for a weak public key. `cryptography` rejects EC points outside the curve."""
    match material:
        case RSAPublicKey():
            _check_rsa(material.public_numbers())
        case EllipticCurvePublicKey() if not isinstance(material.curve, SECP256R1):
            raise UnusableKey("on a curve other than P-256")
        case Ed25519PublicKey():
            _check_ed25519(material.public_bytes_raw())


def _check_rsa(numbers: RSAPublicNumbers) -> None:
    """Apply NIST SP 800-89, section 5.3.3, but for factors below 4096 instead of 752.

    Larger factors are not found: a key with predictable primes (ROCA, shared primes) passes.
    """
    if numbers.n.bit_length() not in RSA_BITS:
        raise UnusableKey(f"with an RSA modulus of fewer than {RSA_BITS[0]} or more than {RSA_BITS[-1]} bits")
    if numbers.e not in _RSA_EXPONENTS:
        raise UnusableKey("with an RSA exponent that is even or not from 3 to 4294967295")
    if gcd(numbers.n, _SMALL_PRIMES) != 1:
        raise UnusableKey(f"with an RSA modulus that is even or has another factor below {_FACTORS_BELOW}")


# The curve of RFC 8032, section 5.1: -x² + y² = 1 + d·x²·y².
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


def _check_ed25519(raw: bytes) -> None:
    """Require a point that decodes (RFC 8032, section 5.1.3) and is not of low order.

    With a key of low order, one signature fits many messages (Chalkias and others, "Taming the many EdDSAs",
    2020). The eight points whose order divides 8 have y = ±1, y = 0, or d·y⁴ + 2y² = 1: doubled, y = 0.
    """
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    y2 = y * y % _P
    if y * (y2 - 1) * (_D * y2 * y2 + 2 * y2 - 1) % _P == 0:
        raise UnusableKey("with an Ed25519 point of low order")
    # x² = (y² - 1) / (d·y² + 1) must be a square: Euler's criterion, for the product instead of the quotient.
    if y >= _P or pow((y2 - 1) * (_D * y2 + 1), (_P - 1) // 2, _P) != 1:
        raise UnusableKey("with octets that encode no Ed25519 point")
