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
            "help_text": "What a key may be for; each is for one. An RSA key that does not name its own "
            "is used only if one of RS256 and PS256 is allowed.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> list[str]:
        """Return them, each once, in one order."""
        given = super().clean(value)
        return [name for name in PUBLIC_KEYS if name in given]
