"""Public keys that staff enter as text: a key in PEM, a certificate, a JWK or a JWK Set."""

import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from django import forms
from django.core.exceptions import ValidationError

from providers.contract import TrustedKey
from providers.jwks.jwk import create_trusted_key, is_secret
from providers.jwks.jwk_set import DEPTH, JWKSet, create_key_ring, parse_jwk_set
from providers.jwks.strength import UnusableKey
from providers.strict_json import NotStrictJSON, parse

_PEM = re.compile(r"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]++-----END \1-----")
_LOADERS: dict[str, Callable[[bytes], Any]] = {
    "PUBLIC KEY": load_pem_public_key,
    "CERTIFICATE": lambda text: load_pem_x509_certificate(text).public_key(),
}


class _PublicKeysTextarea(forms.Textarea):
    def format_value(self, value: Any) -> str | None:
        text = super().format_value(value)
        return None if text and _is_secret(text) else text


class PublicKeysField(forms.CharField):
    """Public keys as text of at most 32,768 characters. Private and shared keys are rejected."""

    def __init__(self, **kwargs: Any) -> None:
        widget = _PublicKeysTextarea(attrs={"rows": 8, "spellcheck": "false"})
        super().__init__(**{"max_length": 32 * 1024, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        text = _strip(super().clean(value) or "")
        if _is_secret(text):
            raise ValidationError(
                "This is a private or shared key. Enter the public key, and replace this key wherever it is "
                "used."
            )
        return text


@lru_cache(maxsize=1024)
def parse_static_keys(tenant: str, text: str, key_id: str, algorithms: tuple[str, ...]) -> JWKSet:
    """Return the keys in the text of a `PublicKeysField`.

    `key_id` is the `kid` of a key in PEM; it must be empty for a JWK. Raises `UnusableKey`; its message
    continues a sentence that begins with "it".
    """
    text = text.strip()
    if not text.startswith("{"):
        return JWKSet(create_key_ring(tenant, [_parse_pem(text, key_id, algorithms)]), Counter())
    if key_id:
        raise UnusableKey("is a JWK, which contains its key ID: leave the field empty")
    try:
        value = parse(text.encode(), DEPTH)
    except NotStrictJSON as error:
        raise UnusableKey(f"is not valid JSON: {error}") from None
    return parse_jwk_set(tenant, value if "keys" in value else {"keys": [value]}, algorithms)


def _parse_pem(text: str, key_id: str, algorithms: tuple[str, ...]) -> TrustedKey:
    if not (match := _PEM.fullmatch(text)):
        raise UnusableKey("is not a public key or certificate in PEM, a JWK or a JWK Set")
    if not key_id:
        raise UnusableKey("is in PEM and needs a key ID: the kid of the tokens")
    try:
        material = _LOADERS[match[1]](text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UnusableKey("is malformed") from None
    try:
        return create_trusted_key(key_id, material, None, algorithms)
    except UnusableKey as reason:
        raise UnusableKey(f"is a key {reason}") from None


def _strip(text: str) -> str:
    return text.strip().removeprefix("\ufeff").lstrip()


def _is_secret(text: str) -> bool:
    """Return True if the text contains, or looks like, a private or shared key."""
    if "PRIVATE KEY" in text:
        return True
    try:
        value = parse(_strip(text).encode("utf-8", "replace"), DEPTH)
    except NotStrictJSON:
        compact = "".join(text.split())
        return '"d":' in compact or '"k":' in compact
    keys = value.get("keys", [value]) if isinstance(value, dict) else []
    return isinstance(keys, list) and any(is_secret(jwk) for jwk in keys if isinstance(jwk, dict))
