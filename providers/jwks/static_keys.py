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
from providers.jose import PUBLIC_KEY_TYPES
from providers.jwks.jwk import create_trusted_key, is_secret, parse_jwk
from providers.jwks.jwk_set import DEPTH, JWKSet, create_key_ring, parse_jwk_set
from providers.jwks.strength import UnusableKey, check_strength
from providers.strict_json import NotStrictJSON, parse

MAX_LENGTH = 32 * 1024

_PEM = re.compile(r"-----BEGIN (PUBLIC KEY|CERTIFICATE)-----[A-Za-z0-9+/=\s]++-----END \1-----")
_LOADERS: dict[str, Callable[[bytes], Any]] = {
    "PUBLIC KEY": load_pem_public_key,
    "CERTIFICATE": lambda text: load_pem_x509_certificate(text).public_key(),
}
_SECRET_MEMBER = re.compile(r"""[{,\s]["']?+[dk]["']?+\s{0,8}+:""")
"""In text that is not strict JSON, such as a key that was printed by Python or JavaScript."""

_PUBLIC_MEMBERS = frozenset(
    "kty use key_ops alg kid x5u x5c x5t x5t#S256 crv x y n e ext".split()  # noqa: SIM905
)
_JWK_TYPES = {"RS256": "RSA", "PS256": "RSA", "ES256": "EC", "EdDSA": "OKP"}
_SECRET = "is a private or shared key. Enter the public key, and replace this key wherever it is used"  # noqa: S105


class _PublicKeysTextarea(forms.Textarea):
    def format_value(self, value: Any) -> str | None:
        """Do not show a private key again, or text that cannot be searched for one."""
        text = super().format_value(value)
        is_readable = text is None or not _strip(text).startswith("{") or _parse(text) is not None
        return text if is_readable and not _is_secret(text or "") else None


class PublicKeysField(forms.CharField):
    """Public keys as text of at most 32,768 characters. Private and shared keys are rejected."""

    def __init__(self, **kwargs: Any) -> None:
        widget = _PublicKeysTextarea(attrs={"rows": 8, "spellcheck": "false"})
        super().__init__(**{"max_length": MAX_LENGTH, "widget": widget, **kwargs})

    def clean(self, value: Any) -> str:
        text = _strip(super().clean(value) or "")
        if _is_secret(text):
            raise ValidationError(f"This {_SECRET}.")
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


def parse_public_key(text: str, kid: str, algorithm: str) -> Any:
    """Return the key in `text`, a public key or certificate in PEM, or a JWK, for this `kid` and algorithm.

    Raises `UnusableKey`; its message continues a sentence that begins with "it", and contains nothing from
    the text.
    """
    text = _strip(text)
    if len(text) > MAX_LENGTH:
        raise UnusableKey(f"has more than {MAX_LENGTH:,} characters")
    if _is_secret(text):
        raise UnusableKey(_SECRET)
    try:
        if text.startswith("{"):
            return _parse_single_jwk(text, kid, algorithm)
        material = _load_pem(text, "a public key or certificate in PEM, or a JWK")
        if not isinstance(material, PUBLIC_KEY_TYPES[algorithm]):
            raise UnusableKey(f"for another algorithm than {algorithm}")
        check_strength(material)
    except _UnreadableText:
        raise
    except UnusableKey as reason:
        raise UnusableKey(f"is a key {reason}") from None
    return material


def is_public_key_text(text: str) -> bool:
    """Return True if the text is a public key and nothing else: it can be shown."""
    text = _strip(text)
    if not text.startswith("{"):
        try:
            _load_pem(text, "")
        except UnusableKey:
            return False
        return True
    value = _parse(text)
    keys = value.get("keys", [value]) if isinstance(value, dict) else None
    return isinstance(keys, list) and all(isinstance(jwk, dict) and _is_public(jwk) for jwk in keys)


def _is_public(jwk: dict[str, Any]) -> bool:
    """Return True if a JWK has no members but those of public keys (RFC 7517, 4; RFC 7518, 6.2 and 6.3)."""
    texts = [text for value in jwk.values() for text in (value if isinstance(value, list) else [value])]
    return jwk.keys() <= _PUBLIC_MEMBERS and not any(isinstance(text, dict | list) for text in texts)


class _UnreadableText(UnusableKey):
    """The message continues a sentence that begins with "it"."""


def _parse_single_jwk(text: str, kid: str, algorithm: str) -> Any:
    try:
        jwk = parse(text.encode("utf-8", "replace"), DEPTH)
    except NotStrictJSON as error:
        raise _UnreadableText(f"is not valid JSON: {error}") from None
    if "keys" in jwk:
        raise _UnreadableText("is a JWK Set: enter one of its keys")
    if jwk.get("kid") not in (None, kid):
        raise UnusableKey("with another kid than the one entered")
    if jwk.get("alg") not in (None, algorithm) or jwk.get("kty") != _JWK_TYPES[algorithm]:
        raise UnusableKey(f"for another algorithm than {algorithm}")
    return parse_jwk({**jwk, "kid": kid, "alg": algorithm}, (algorithm,)).material


def _load_pem(text: str, forms: str) -> Any:
    if not (match := _PEM.fullmatch(text)):
        raise _UnreadableText(f"is not {forms}")
    try:
        return _LOADERS[match[1]](text.encode())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _UnreadableText("is malformed") from None


def _parse_pem(text: str, key_id: str, algorithms: tuple[str, ...]) -> TrustedKey:
    if not key_id and _PEM.fullmatch(text):
        raise UnusableKey("is in PEM and needs a key ID: the kid of the tokens")
    material = _load_pem(text, "a public key or certificate in PEM, a JWK or a JWK Set")
    try:
        return create_trusted_key(key_id, material, None, algorithms)
    except UnusableKey as reason:
        raise UnusableKey(f"is a key {reason}") from None


def _strip(text: str) -> str:
    return text.strip().removeprefix("\ufeff").lstrip()


def _parse(text: str) -> Any:
    """Return the JSON value; None if it is not strict JSON."""
    try:
        return parse(_strip(text).encode("utf-8", "replace"), DEPTH)
    except NotStrictJSON:
        return None


def _is_secret(text: str) -> bool:
    """Return True if the text contains, or looks like, a private or shared key."""
    if "PRIVATE KEY" in text:
        return True
    value = _parse(text)
    return _contains_secret(value) if value is not None else bool(_SECRET_MEMBER.search(text))


def _contains_secret(value: Any) -> bool:
    """Return True if a member at any depth makes a private or shared key. The depth is limited by `parse`."""
    if isinstance(value, list):
        return any(map(_contains_secret, value))
    return isinstance(value, dict) and (is_secret(value) or any(map(_contains_secret, value.values())))
