"""Secret settings of services: their placeholders, encryption and destinations."""

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
"""Stored among the settings in place of a secret. Random, and new with each change of the secret, so that the
history shows the change but nothing of the secret."""

UNDECRYPTABLE = "The stored secret cannot be decrypted: enter it again."
NOTHING_STORED = "No secret is stored: enter it."


def secret_names(strategy: Strategy | None) -> list[str]:
    declared = strategy.Settings.base_fields if strategy is not None else {}
    return [name for name, field in declared.items() if isinstance(field, SecretField)]


def select_secrets(strategy: Strategy | None, settings: Any) -> dict[str, Any]:
    """Return the non-empty secrets among `settings`: placeholders or plain text, by setting name."""
    if not isinstance(settings, dict):
        return {}
    return {name: settings[name] for name in secret_names(strategy) if settings.get(name)}


def secret_destinations(strategy: Strategy, secret: str) -> dict[str, str]:
    """Return the labels, by name, of the settings that determine where this secret is sent."""
    declared = strategy.Settings.base_fields
    destinations = cast("SecretField", declared[secret]).destination_settings
    names = [name for name in declared if name != secret and name in destinations]
    return {name: str(declared[name].label or pretty_name(name)) for name in names}


def changed_destinations(
    strategy: Strategy, kept: Iterable[str], before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, str]:
    """Return which of the `kept` secrets would be sent to a new destination: the reasons by setting name.

    `before` and `after` are cleaned settings. A setting that is missing in `before` was invalid and counts as
    changed; one that is missing in `after` is invalid and will not be saved.
    """
    reasons = {}
    for secret in kept:
        changed = [
            label
            for name, label in secret_destinations(strategy, secret).items()
            if name in after and (name not in before or _normalize(before[name]) != _normalize(after[name]))
        ]
        if changed:
            have = "has" if len(changed) == 1 else "have"
            reasons[secret] = f"{get_text_list(changed, 'and')} {have} changed. Enter the secret again."
    return reasons


def _normalize(value: Any) -> Any:
    # Browsers submit CRLF line endings.
    return normalize_newlines(value) if isinstance(value, str) else value


def new_placeholder() -> str:
    return f"sealed:{secrets.token_hex(4)}"


def is_placeholder(value: Any) -> bool:
    return isinstance(value, str) and PLACEHOLDER.match(value) is not None


def encrypt(secrets_by_name: Mapping[str, str], tenant_id: str, strategy: str) -> bytes | None:
    """Encrypt the secrets of a service; return None if there are none.

    They can be decrypted only for services with this tenant and strategy, neither of which can change.
    """
    if not secrets_by_name:
        return None
    return encryption.encrypt(json.dumps(dict(secrets_by_name)).encode(), _row_id(tenant_id, strategy))


def decrypt(encrypted: bytes | memoryview | None, tenant_id: str, strategy: str) -> dict[str, str]:
    """Return the secrets of a service by setting name. Raises `encryption.DecryptionFailed`."""
    if encrypted is None:
        return {}
    secrets_by_name: dict[str, str] = json.loads(
        encryption.decrypt(bytes(encrypted), _row_id(tenant_id, strategy))
    )
    return secrets_by_name


def _row_id(tenant_id: str, strategy: str) -> tuple[str, str, str]:
    return ("service settings", tenant_id, strategy)
