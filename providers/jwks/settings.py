"""The settings that have to do with public keys."""

from __future__ import annotations

from typing import Any

from django import forms

from providers.jose import PUBLIC_KEYS


class AlgorithmsField(forms.MultipleChoiceField):
    """Some of the algorithms of public keys, at least one."""

    def __init__(self, **kwargs: Any) -> None:
        options = {
            "choices": [(name, name) for name in PUBLIC_KEYS],
            "widget": forms.CheckboxSelectMultiple,
            "help_text": "A key is for one of these, and is used if that is ticked. An RSA key that does not "
            "say which is used only if either RS256 or PS256 is ticked, and not both.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> list[str]:
        """Return them, each once, in one order."""
        given = super().clean(value)
        return [name for name in PUBLIC_KEYS if name in given]
