"""Public keys of an operator: from a JWK Set at a URL, or entered by staff."""

from providers.jwks.jwk_set import JWKSet, JWKSetReader
from providers.jwks.refetch import verify_with_jwks
from providers.jwks.settings import AlgorithmsField
from providers.jwks.static_keys import (
    PublicKeysField,
    is_public_key_text,
    parse_public_key,
    parse_static_keys,
)
from providers.jwks.strength import UnusableKey

__all__ = [
    "AlgorithmsField",
    "JWKSet",
    "JWKSetReader",
    "PublicKeysField",
    "UnusableKey",
    "is_public_key_text",
    "parse_public_key",
    "parse_static_keys",
    "verify_with_jwks",
]
