"""Random tokens, of which only keyed hashes are stored."""

import hmac
import secrets

from tenants.secrets.encryption import derive_keys

TOKEN_LENGTH = 26
"""Characters from [a-z2-7], 5 bits each: 130 bits."""

_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""The character for each byte. 256 is a multiple of 32, so the distribution is uniform."""

SESSION_TOKEN = b"session token"
USER_ACCOUNT_TOKEN = b"user account token"
"""Purposes of tokens. Their hashes differ, so that one kind of token cannot be used as another."""


def new_token(purpose: bytes = SESSION_TOKEN) -> tuple[str, bytes]:
    """Return a random token, and its hash under the newest encryption key."""
    token = secrets.token_bytes(TOKEN_LENGTH).translate(_ALPHABET)
    return token.decode("ascii"), hmac.digest(derive_keys(purpose)[0], token, "sha256")


def token_hashes(token: str, purpose: bytes = SESSION_TOKEN) -> tuple[bytes, ...]:
    """Return the hash of a token under each encryption key, newest key first."""
    return tuple(hmac.digest(key, token.encode(), "sha256") for key in derive_keys(purpose))
