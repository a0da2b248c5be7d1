"""Decoding, validation and generation of the secrets of keys, and their public keys."""

import hashlib
import re
import secrets
from base64 import b64decode
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from django.core.exceptions import ValidationError

from providers.jose import HMAC_BYTES, PUBLIC_KEY_TYPES
from providers.jwks import UnusableKey, parse_public_key
from tenants.whitespace import strip_whitespace

MAX_BYTES = 1024

_BASE64 = re.compile(r"[A-Za-z0-9+/]*+={0,2}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*+={0,2}")


def has_surrounding_whitespace(secret: bytes) -> bool:
    """Return whether the secret is text that `strip_whitespace` would shorten.

    Returns False for binary secrets, in which such bytes are significant.
    """
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return False
    return strip_whitespace(text) != text and strip_whitespace(text).isprintable()


def decode(text: str, encoding: str) -> bytes:
    """Decode a secret with the encoding `text`, `base64` or `base64url`. Raises ValidationError.

    Surrounding white space is removed. A secret that begins or ends with white space must be in base64.
    """
    text = strip_whitespace(text)
    if encoding == "text":
        try:
            return text.encode()
        except UnicodeEncodeError:
            raise ValidationError("The secret is not valid text.") from None
    compact = "".join(text.split())
    alphabet = _BASE64 if encoding == "base64" else _BASE64URL
    try:
        if not alphabet.fullmatch(compact):
            raise ValueError
        padded = compact.rstrip("=")
        padded += "=" * (-len(padded) % 4)
        return b64decode(padded, altchars=None if encoding == "base64" else b"-_", validate=True)
    except ValueError:
        raise ValidationError(f"The secret is not valid {encoding}.") from None


def validate(secret: bytes, algorithm: str) -> None:
    """Check the length (RFC 7518, section 3.2) and reject secrets that are evidently a mistake.

    Raises ValidationError.
    """
    if algorithm in PUBLIC_KEY_TYPES:
        raise ValidationError(f"{algorithm} needs a public key instead of a secret.")
    if algorithm not in HMAC_BYTES:
        raise ValidationError(f"The algorithm {algorithm} is not supported.")
    min_bytes = HMAC_BYTES[algorithm]
    if len(secret) < min_bytes:
        raise ValidationError(
            f"{algorithm} needs a secret of at least {min_bytes} bytes; this one has {len(secret)}."
        )
    if len(secret) > MAX_BYTES:
        raise ValidationError(f"A secret has at most {MAX_BYTES} bytes; this one has {len(secret)}.")
    if len(set(secret)) == 1:
        raise ValidationError("All bytes of the secret are the same.")
    stripped = secret.lstrip()
    if b"-----BEGIN" in secret or stripped.startswith((b"ssh-", b"ecdsa-")):
        raise ValidationError("This is a PEM or SSH key, not a shared secret.")
    if stripped.startswith(b"{") and b'"kty"' in secret:
        raise ValidationError(
            "This is a JWK, not a shared secret: enter the value of its member k as base64url."
        )


def generate(algorithm: str) -> bytes:
    return secrets.token_bytes(HMAC_BYTES[algorithm])


def normalize_public_key(text: str, kid: str, algorithm: str) -> str:
    """Validate a public key or certificate in PEM, or a JWK, and return the key in PEM.

    Raises ValidationError, whose message contains nothing from the text: it may be a private key.
    """
    if algorithm not in PUBLIC_KEY_TYPES:
        raise ValidationError(f"{algorithm} needs a secret instead of a public key.")
    try:
        key = parse_public_key(text, kid, algorithm)
    except UnusableKey as error:
        raise ValidationError(f"It {error}.") from None
    pem: str = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return pem


def load_public_key(pem: str) -> Any:
    """Raises ValueError."""
    try:
        return load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None


def public_key_fingerprint(pem: str) -> str:
    """Return the SHA-256 of the SubjectPublicKeyInfo in hexadecimal. Raises ValueError."""
    der = load_public_key(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()
