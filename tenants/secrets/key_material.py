"""What may serve as the secret of a key: the same rules on every way in."""

from __future__ import annotations

import binascii
import re
import secrets
from base64 import b64decode

from django.core.exceptions import ValidationError

from providers.jose import HMAC_BYTES
from tenants.whitespace import strip_whitespace

MAX_BYTES = 1024

_BASE64 = re.compile(r"[A-Za-z0-9+/]*+={0,2}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*+={0,2}")


def has_white_space_around(secret: bytes) -> bool:
    """Whether it is a text that `strip_whitespace` would shorten. Random bytes may end so, and mean it."""
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return False
    return strip_whitespace(text) != text and strip_whitespace(text).isprintable()


def decode(text: str, encoding: str) -> bytes:
    """Return the bytes of a secret given as `text`, `base64` or `base64url`. Raises ValidationError.

    White space around it is no part of it. A secret that has some is given in base64.
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
    except (binascii.Error, ValueError):
        raise ValidationError(f"The secret is not valid {encoding}.") from None


def check(secret: bytes, algorithm: str) -> None:
    """Refuse a secret that RFC 7518 section 3.2 or plain sense forbids. Raises ValidationError."""
    if algorithm not in HMAC_BYTES:
        raise ValidationError(f"There is no algorithm {algorithm} here.")
    least = HMAC_BYTES[algorithm]
    if len(secret) < least:
        raise ValidationError(
            f"{algorithm} needs a secret of at least {least} bytes, this has {len(secret)}."
        )
    if len(secret) > MAX_BYTES:
        raise ValidationError(f"A secret has at most {MAX_BYTES} bytes, this has {len(secret)}.")
    if len(set(secret)) == 1:
        raise ValidationError("All bytes of the secret are the same.")
    head = secret.lstrip()
    if b"-----BEGIN" in secret or head.startswith((b"ssh-", b"ecdsa-")):
        raise ValidationError("This is a PEM or SSH key, not a shared secret.")
    if head.startswith(b"{") and b'"kty"' in secret:
        raise ValidationError(
            "This is a JWK, not a shared secret: enter the value of its member k as base64url."
        )


def generate(algorithm: str) -> bytes:
    """Return a new secret of the right length from the system's random source."""
    return secrets.token_bytes(HMAC_BYTES[algorithm])
