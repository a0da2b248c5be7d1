"""Encryption at rest with AES-256-GCM. Each value is bound to its row as associated data.

Not by an encrypted model field: Fernet, on which these are built, has no associated data.
"""

import hashlib
import hmac
import secrets
from functools import cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

# encrypted value = format (1 byte) | key fingerprint (4) | nonce (12) | ciphertext and tag
_FORMAT = b"\x01"
_FINGERPRINT = slice(1, 5)
_NONCE = slice(5, 17)
_CIPHERTEXT = slice(17, None)


class DecryptionFailed(Exception):
    """No key in `AGS_ENCRYPTION_KEYS` decrypts this value for this row."""


def encrypt(secret: bytes, row: tuple[str, ...]) -> bytes:
    """Encrypt `secret` with the newest key. `row` is the natural key of the row to which it is bound."""
    key = settings.AGS_ENCRYPTION_KEYS[0]
    nonce = secrets.token_bytes(12)
    return _FORMAT + _fingerprint(key) + nonce + AESGCM(key).encrypt(nonce, secret, _associated_data(row))


def decrypt(encrypted: bytes, row: tuple[str, ...]) -> bytes:
    """Decrypt a value that was encrypted for the same row. Raises `DecryptionFailed`."""
    for key in settings.AGS_ENCRYPTION_KEYS:
        if encrypted[:1] == _FORMAT and encrypted[_FINGERPRINT] == _fingerprint(key):
            try:
                return AESGCM(key).decrypt(encrypted[_NONCE], encrypted[_CIPHERTEXT], _associated_data(row))
            except (InvalidTag, ValueError):
                break
    raise DecryptionFailed


def is_encrypted_with_newest_key(encrypted: bytes) -> bool:
    return encrypted[_FINGERPRINT] == _fingerprint(settings.AGS_ENCRYPTION_KEYS[0])


def derive_keys(purpose: bytes) -> tuple[bytes, ...]:
    """Return a 32-byte key for `purpose` from each encryption key, newest first."""
    return _derive_keys(settings.AGS_ENCRYPTION_KEYS, purpose)


@cache
def _derive_keys(keys: tuple[bytes, ...], purpose: bytes) -> tuple[bytes, ...]:
    return tuple(hmac.digest(key, purpose, "sha256") for key in keys)


def fingerprint(key: bytes) -> str:
    """Return a short identifier of a derived key. It reveals nothing of the key."""
    return _fingerprint(key).hex()


def _fingerprint(key: bytes) -> bytes:
    return hashlib.sha256(b"ags encryption key" + key).digest()[:4]


def _associated_data(row: tuple[str, ...]) -> bytes:
    # Each part is prefixed with its length, so that ("a", "bc") and ("ab", "c") differ.
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in row)
