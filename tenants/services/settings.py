"""Validation of service settings with the form of the strategy."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from providers.contract import Strategy


def clean_settings(
    strategy: Strategy, stored: Any, *, unread: Collection[str] = ()
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the settings to store (JSON, defaults filled in) and the cleaned settings for `verify`.

    `unread`: the names of secrets that cannot be decrypted, and so are not validated.
    Raises ValidationError, whose `settings` messages begin with the name of the setting.
    """
    if not isinstance(stored, dict):
        raise ValidationError({"settings": "Settings must be an object."})
    fields = strategy.Settings.base_fields
    if unknown := sorted(stored.keys() - fields.keys()):
        raise ValidationError({"settings": f"{unknown[0]}: {strategy.slug} has no such setting."})
    form = _form(strategy, stored)
    errors = {name: messages for name, messages in form.errors.items() if name not in unread}
    if errors:
        raise ValidationError(
            {"settings": [f"{name}: {message}" for name, messages in errors.items() for message in messages]}
        )
    values = form.cleaned_data | {name: stored[name] for name in unread}
    return {name: values[name] for name in fields}, MappingProxyType(form.cleaned_data)


def clean_valid_settings(strategy: Strategy, stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the cleaned values of the valid settings. Leaves out the invalid ones."""
    form = _form(strategy, stored)
    form.full_clean()
    return form.cleaned_data


def _form(strategy: Strategy, stored: Mapping[str, Any]) -> forms.Form:
    defaults = {name: field.initial for name, field in strategy.Settings.base_fields.items()}
    return strategy.Settings(defaults | dict(stored))
