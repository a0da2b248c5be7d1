"""Secret settings: which they are, the mark that stands in place of each, and how they are sealed."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, cast

from django.forms.utils import pretty_name
from django.utils.text import get_text_list, normalize_newlines

from providers.contract import SecretField, Strategy
from tenants.secrets import encryption

PLACEHOLDER = re.compile(r"\Asealed:[0-9a-f]{8}\Z")
"""What stands among the settings for a secret that is set. Random, and new with each change, so that the
history shows that it was changed, and nothing of what it is."""

UNDECRYPTABLE = "No encryption key opens what is stored: enter it again."
NOTHING_STORED = "Nothing is stored: enter it."


def secret_names(strategy: Strategy | None) -> list[str]:
    """Return which settings of that strategy are secrets."""
    declared = strategy.Settings.base_fields if strategy is not None else {}
    return [name for name, field in declared.items() if isinstance(field, SecretField)]


def secrets_of(strategy: Strategy | None, settings: Any) -> dict[str, Any]:
    """Return the secrets among these settings that are set, each as its mark or in the clear."""
    if not isinstance(settings, dict):
        return {}
    return {name: settings[name] for name in secret_names(strategy) if settings.get(name)}


def secret_destinations(strategy: Strategy, secret: str) -> dict[str, str]:
    """Return the labels of the settings that decide where that secret is sent, by their names."""
    declared = strategy.Settings.base_fields
    destinations = cast("SecretField", declared[secret]).destination_settings
    names = [name for name in declared if name != secret and name in destinations]
    return {name: str(declared[name].label or pretty_name(name)) for name in names}


def changed_destinations(
    strategy: Strategy, kept: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, str]:
    """Return which of the secrets that are kept would be sent elsewhere, and why.

    `before` and `after` are cleaned settings. One that is missing in `before` was not valid, and counts as
    changed; one that is missing in `after` is not valid, and is not stored.
    """
    reasons = {}
    for secret in kept:
        changed = [
            label
            for name, label in secret_destinations(strategy, secret).items()
            if name in after and (name not in before or _comparable(before[name]) != _comparable(after[name]))
        ]
        if changed:
            have = "has" if len(changed) == 1 else "have"
            reasons[secret] = f"{get_text_list(changed, 'and')} {have} changed. Enter the secret again."
    return reasons


def _comparable(value: Any) -> Any:
    # A browser ends each line of a text with CRLF.
    return normalize_newlines(value) if isinstance(value, str) else value


def new_placeholder() -> str:
    """Return a mark that tells nothing."""
    return f"sealed:{secrets.token_hex(4)}"


def is_placeholder(value: Any) -> bool:
    """Whether this stands for a secret."""
    return isinstance(value, str) and PLACEHOLDER.match(value) is not None


def encrypt(texts: Mapping[str, str], tenant_id: str, strategy: str) -> bytes | None:
    """Encrypt the secrets of a service, by name; None where there are none.

    They open for services of that strategy of that tenant only: neither of the two ever changes.
    """
    if not texts:
        return None
    return encryption.encrypt(json.dumps(dict(texts)).encode(), _row(tenant_id, strategy))


def decrypt(sealed: bytes | memoryview | None, tenant_id: str, strategy: str) -> dict[str, str]:
    """Return what was sealed. Raises `encryption.DecryptionFailed`."""
    if sealed is None:
        return {}
    texts: dict[str, str] = json.loads(encryption.decrypt(bytes(sealed), _row(tenant_id, strategy)))
    return texts


def _row(tenant_id: str, strategy: str) -> tuple[str, str, str]:
    return ("service settings", tenant_id, strategy)
