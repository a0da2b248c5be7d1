"""The text of a session token, and the hash by which it is known here."""

import base64
import hmac
import secrets

from tenants.encryption import derived_keys

LENGTH = 26
"""Characters from [a-z2-7], 5 bits each: 130 bits."""


def new_token() -> str:
    """Return a new session token from the system's random source."""
    return base64.b32encode(secrets.token_bytes(17))[:LENGTH].decode("ascii").lower()


def hash_of(token: str) -> bytes:
    """Return the keyed hash under which a new token is stored."""
    return _hashes(token)[0]


def hashes_of(token: str) -> tuple[bytes, ...]:
    """Return every hash under which a token may have been stored, newest key first."""
    return _hashes(token)


def _hashes(token: str) -> tuple[bytes, ...]:
    return tuple(hmac.digest(key, token.encode(), "sha256") for key in derived_keys(b"session token"))
