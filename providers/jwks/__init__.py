"""Public keys of an operator: from a JWK Set at a URL, or entered by staff."""

from providers.jwks.jwk_set import JWKSet, JWKSetReader
from providers.jwks.settings import AlgorithmsField
from providers.jwks.static_keys import PublicKeysField, entered
from providers.jwks.strength import Unusable
from providers.jwks.verify import verify_with_jwks

__all__ = [
    "AlgorithmsField",
    "JWKSet",
    "JWKSetReader",
    "PublicKeysField",
    "Unusable",
    "entered",
    "verify_with_jwks",
]
