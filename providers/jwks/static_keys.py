"""Public keys that staff enter as text: a key in PEM, a certificate, a JWK or a JWK Set."""

from __future__ import annotations

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
from providers.jwks.jwk import is_secret, trusted
from providers.jwks.jwk_set import DEPTH, JWKSet, key_set, ring
from providers.jwks.strength import Unusable
from providers.strict_json import NotStrictJSON, parse

_PEM = re.compile(r"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]++-----END \1-----")
_READERS: dict[str, Callable[[bytes], Any]] = {
    "PUBLIC KEY": load_pem_public_key,
    "CERTIFICATE": lambda text: load_pem_x509_certificate(text).public_key(),
}
_IS_SECRET = "This is a private or shared key. Enter the public one, and replace this one where it is used."  # noqa: S105


class _Area(forms.Textarea):
    """Does not give back what was refused for being secret."""

    def format_value(self, value: Any) -> str | None:
        text = super().format_value(value)
        return None if text and _is_secret(text) else text


class PublicKeysField(forms.CharField):
    """Public keys as text, of at most 32,768 characters; what is private is refused."""

    def __init__(self, **kwargs: Any) -> None:
        widget = _Area(attrs={"rows": 8, "spellcheck": "false"})
        super().__init__(**{"max_length": 32 * 1024, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        """Return the text, without the byte order mark of the file that it was pasted from."""
        text = _bare(super().clean(value) or "")
        if _is_secret(text):
            raise ValidationError(_IS_SECRET)
        return text


@lru_cache(maxsize=1024)
def entered(tenant: str, text: str, key_id: str, algorithms: tuple[str, ...]) -> JWKSet:
    """Return the keys that a `PublicKeysField` holds.

    `key_id` is the `kid` of a key in PEM, which has none of its own. Raises `Unusable`, whose message then
    follows "it".
    """
    text = text.strip()
    if not text.startswith("{"):
        return JWKSet(ring(tenant, [_pem(text, key_id, algorithms)]), Counter())
    if key_id:
        raise Unusable("is a JWK, which contains its key ID: leave the field empty")
    try:
        value = parse(text.encode(), DEPTH)
    except NotStrictJSON as flaw:
        raise Unusable(f"is malformed: {flaw}") from None
    return key_set(tenant, value if "keys" in value else {"keys": [value]}, algorithms)


def _pem(text: str, key_id: str, algorithms: tuple[str, ...]) -> TrustedKey:
    if not (found := _PEM.fullmatch(text)):
        raise Unusable("is not a public key or certificate in PEM, a JWK or a JWK Set")
    if not key_id:
        raise Unusable("is in PEM and needs the key ID, which is the kid of the tokens")
    try:
        material = _READERS[found[1]](text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unusable("is malformed") from None
    try:
        return trusted(key_id, material, None, algorithms)
    except Unusable as reason:
        raise Unusable(f"is a key {reason}") from None


def _bare(text: str) -> str:
    return text.strip().removeprefix("\ufeff").lstrip()


def _is_secret(text: str) -> bool:
    """Whether somebody has pasted what should have stayed where it was."""
    if "PRIVATE KEY" in text:
        return True
    try:
        value = parse(_bare(text).encode("utf-8", "replace"), DEPTH)
    except NotStrictJSON:
        # Not read, it is not given back if it looks like one.
        written = "".join(text.split())
        return '"d":' in written or '"k":' in written
    listed = value.get("keys", [value]) if isinstance(value, dict) else []
    return isinstance(listed, list) and any(is_secret(jwk) for jwk in listed if isinstance(jwk, dict))
