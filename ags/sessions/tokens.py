"""The text of a session token, and the hash by which it is known here."""

import base64
import hmac
import secrets

from tenants.encryption import derived_keys

LENGTH = 26
"""Characters from [a-z2-7], 5 bits each: 130 bits."""


PURPOSE = b"session token"


def new_token() -> str:
    """Return a new session token from the system's random source."""
    return base64.b32encode(secrets.token_bytes(17))[:LENGTH].decode("ascii").lower()


def hash_of(token: str) -> bytes:
    """Return the keyed hash under which a new token is stored."""
    return _hash(derived_keys(PURPOSE)[0], token)


def hashes_of(token: str) -> tuple[bytes, ...]:
    """Return every hash under which a token may have been stored, newest key first."""
    return tuple(_hash(key, token) for key in derived_keys(PURPOSE))


def _hash(key: bytes, token: str) -> bytes:
    return hmac.digest(key, token.encode(), "sha256")
