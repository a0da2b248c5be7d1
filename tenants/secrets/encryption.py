"""Encryption at rest: AES-256-GCM, each value bound to the row it was sealed for."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

# sealed = format (1 byte) | key fingerprint (4) | nonce (12) | ciphertext and tag
_FORMAT = b"\x01"
_PRINT = slice(1, 5)
_NONCE = slice(5, 17)
_TEXT = slice(17, None)


class DecryptionFailed(Exception):
    """A sealed value that none of `AGS_ENCRYPTION_KEYS` opens for this row."""


def encrypt(secret: bytes, row: tuple[str, ...]) -> bytes:
    """Encrypt `secret` under the newest key so that it opens only for `row`, its natural key."""
    key = settings.AGS_ENCRYPTION_KEYS[0]
    nonce = secrets.token_bytes(12)
    return _FORMAT + _fingerprint(key) + nonce + AESGCM(key).encrypt(nonce, secret, _bound_to(row))


def decrypt(sealed: bytes, row: tuple[str, ...]) -> bytes:
    """Decrypt what `encrypt` made for the same row. Raises `DecryptionFailed`."""
    for key in settings.AGS_ENCRYPTION_KEYS:
        if sealed[:1] == _FORMAT and sealed[_PRINT] == _fingerprint(key):
            try:
                return AESGCM(key).decrypt(sealed[_NONCE], sealed[_TEXT], _bound_to(row))
            except (InvalidTag, ValueError):
                break
    raise DecryptionFailed


def encrypted_with_newest_key(sealed: bytes) -> bool:
    """Whether the value is already under the newest key."""
    return sealed[_PRINT] == _fingerprint(settings.AGS_ENCRYPTION_KEYS[0])


def derived_keys(purpose: bytes) -> tuple[bytes, ...]:
    """Return a 32-byte key for `purpose` from each encryption key, newest first."""
    return _derived(settings.AGS_ENCRYPTION_KEYS, purpose)


@cache
def _derived(keys: tuple[bytes, ...], purpose: bytes) -> tuple[bytes, ...]:
    return tuple(hmac.digest(key, purpose, "sha256") for key in keys)


def fingerprint(key: bytes) -> str:
    """Return by which name a derived key can be told from others; it tells nothing of the key."""
    return _fingerprint(key).hex()


def _fingerprint(key: bytes) -> bytes:
    return hashlib.sha256(b"ags encryption key" + key).digest()[:4]


def _bound_to(row: tuple[str, ...]) -> bytes:
    # Lengths first, so that ("a", "bc") and ("ab", "c") differ.
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in row)
