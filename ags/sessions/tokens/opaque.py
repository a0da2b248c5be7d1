"""The text of a token that is not a JWT, and the hash by which it is known here."""

import hmac
import secrets

from tenants.secrets.encryption import derive_keys

LENGTH = 26
"""Characters from [a-z2-7], 5 bits each: 130 bits."""

_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""The character for each octet. 256 is a multiple of 32, so all are equally likely."""

SESSION_TOKEN = b"session token"
USER_ACCOUNT_TOKEN = b"user account token"
"""What a token is for. Under another purpose its hash is another one: neither can stand in for the other."""


def new_token() -> str:
    """Return a new token from the system's random source."""
    return secrets.token_bytes(LENGTH).translate(_CHARACTERS).decode("ascii")


def hash_token(token: str, purpose: bytes = SESSION_TOKEN) -> bytes:
    """Return the keyed hash under which a new token is stored."""
    return _hash(derive_keys(purpose)[0], token)


def token_hashes(token: str, purpose: bytes = SESSION_TOKEN) -> tuple[bytes, ...]:
    """Return every hash under which a token may have been stored, newest key first."""
    return tuple(_hash(key, token) for key in derive_keys(purpose))


def _hash(key: bytes, token: str) -> bytes:
    return hmac.digest(key, token.encode(), "sha256")
