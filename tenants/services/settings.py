"""Settings of services: as the form of the strategy validates them, and as they are stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from providers.contract import Strategy
from providers.registry import strategies
from tenants.secrets.service_secrets import (
    NOTHING_STORED,
    UNDECRYPTABLE,
    changed_destinations,
    is_placeholder,
    new_placeholder,
    select_secrets,
)


class InvalidSettings(ValidationError):
    """The settings of a service are invalid. Each message begins with the name of a setting."""

    def __init__(self, errors: Mapping[str, Any]) -> None:
        self.errors = errors
        super().__init__(
            {"settings": [f"{name}: {message}" for name, messages in errors.items() for message in messages]}
        )


def clean_settings(strategy: Strategy, stored: Any) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the settings to store (JSON, defaults filled in) and the cleaned settings for `verify`.

    Raises ValidationError.
    """
    form = _validate(strategy, stored)
    if form.errors:
        raise InvalidSettings(form.errors)
    return {name: form.cleaned_data[name] for name in _stored_names(form)}, MappingProxyType(
        form.cleaned_data
    )


def _validate(strategy: Strategy, values: Any) -> forms.Form:
    if not isinstance(values, dict):
        raise ValidationError({"settings": "Settings must be an object."})
    fields = strategy.Settings.base_fields
    if unknown := sorted(values.keys() - fields.keys()):
        raise InvalidSettings({unknown[0]: [f"{strategy.slug} has no such setting."]})
    form = strategy.Settings({name: field.initial for name, field in fields.items()} | values)
    form.full_clean()
    return form


def _stored_names(form: forms.Form) -> list[str]:
    """Return the names of the settings to store: all but initial values of an `OptionalIntegerField`."""
    return [
        name
        for name, field in form.fields.items()
        if not getattr(field, "omit_initial", False) or form.cleaned_data.get(name) != field.initial
    ]


@dataclass(frozen=True, slots=True)
class StoredSettings:
    """The stored settings of a service, and what becomes of them if others are saved in their place.

    `values`: the settings with a placeholder for each secret. `secrets`: the secrets in plain text by setting
    name; None if they cannot be decrypted. Values to save contain a placeholder to keep a secret.
    """

    slug: str
    values: Any
    secrets: Mapping[str, str] | None = field(repr=False)

    def secrets_in(self, values: Any) -> dict[str, Any]:
        """Return the secrets among `values` by setting name: placeholders or plain text.

        A setting that became a secret after it was stored has its plain text in the stored values.
        """
        return select_secrets(strategies().get(self.slug), values)

    def in_plain_text(self, values: Any, *, lenient: bool = False) -> Any:
        """Return `values` with each placeholder replaced by its secret.

        Raises ValidationError if a secret is missing or cannot be decrypted; if `lenient`, keeps the
        placeholder instead.
        """
        secrets = self.secrets or {}
        kept = [name for name, value in self.secrets_in(values).items() if is_placeholder(value)]
        missing = [name for name in kept if name not in secrets]
        if missing and not lenient:
            reason = UNDECRYPTABLE if self.secrets is None else NOTHING_STORED
            raise InvalidSettings({name: [reason] for name in missing})
        plain = {name: secrets[name] for name in kept if name not in missing}
        return values | plain if plain else values

    def clean(self, values: Any, *, enabled: bool) -> dict[str, Any]:
        """Return `values` with defaults filled in, validated by the form of the strategy.

        Placeholders are kept; those of a disabled service may be of secrets that cannot be decrypted.
        Raises ValidationError; also if a stored secret would be sent to a new destination, or if the provider
        is not installed.
        """
        strategy = strategies().get(self.slug)
        if strategy is None:
            raise ValidationError({"strategy": f"The strategy {self.slug!r} is not installed."})
        secrets = self.secrets_in(values)
        kept = {name: value for name, value in secrets.items() if is_placeholder(value)}
        plain = self.in_plain_text(values, lenient=not enabled and kept == secrets)
        form = _validate(strategy, plain)
        errors: dict[str, Any] = {
            # A placeholder that cannot be replaced is not validated: it is no secret.
            name: messages
            for name, messages in form.errors.items()
            if not (name in kept and plain[name] == kept[name])
        }
        for name, messages in self._check_destinations(strategy, secrets, kept, form.cleaned_data).items():
            errors.setdefault(name, messages)
        if errors:
            raise InvalidSettings(errors)
        return {name: kept.get(name, form.cleaned_data.get(name)) for name in _stored_names(form)}

    def _check_destinations(
        self,
        strategy: Strategy,
        secrets: Mapping[str, Any],
        kept: Collection[str],
        cleaned: Mapping[str, Any],
    ) -> dict[str, list[str]]:
        before = self.secrets_in(self.values)
        # A setting that became a secret after it was stored has no placeholder.
        unchanged = [name for name, value in secrets.items() if name in kept or value == before.get(name)]
        errors = {name: [NOTHING_STORED] for name in unchanged if name not in before}
        if stored := [name for name in unchanged if name in before]:
            old = _validate(strategy, self.in_plain_text(self.values, lenient=True)).cleaned_data
            errors |= {
                name: [reason]
                for name, reason in changed_destinations(strategy, stored, old, cleaned).items()
            }
        return errors

    def redact(self, values: dict[str, Any]) -> dict[str, Any]:
        """Return `values` with the stored placeholder in place of each placeholder or unchanged secret."""
        entered, secrets = self.secrets_in(values), self.secrets or {}
        return values | {
            name: placeholder
            for name, placeholder in self.secrets_in(self.values).items()
            if name in entered and (is_placeholder(entered[name]) or entered[name] == secrets.get(name))
        }

    def replace(self, values: dict[str, Any]) -> StoredSettings:
        """Return the settings as they are stored after `values`, which are valid, have been saved."""
        values = self.redact(values)
        secrets = self.secrets_in(values)
        entered = {name: value for name, value in secrets.items() if not is_placeholder(value)}
        if self.secrets is None and secrets and not entered:
            return StoredSettings(self.slug, values, None)
        kept = {name: secret for name, secret in (self.secrets or {}).items() if name in secrets}
        placeholders = {name: new_placeholder() for name in entered}
        return StoredSettings(self.slug, values | placeholders, kept | entered)
