"""Settings for public keys."""

from __future__ import annotations

from typing import Any

from django import forms

from providers.jose import PUBLIC_KEYS


class AlgorithmsField(forms.MultipleChoiceField):
    """One or more algorithms of public keys."""

    def __init__(self, **kwargs: Any) -> None:
        options = {
            "choices": [(name, name) for name in PUBLIC_KEYS],
            "widget": forms.CheckboxSelectMultiple,
            "help_text": "A key is used only with a selected algorithm. An RSA key without alg is used only "
            "if one of RS256 and PS256 is selected, not both.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> list[str]:
        """Return the selected algorithms, sorted and without duplicates."""
        given = super().clean(value)
        return [name for name in PUBLIC_KEYS if name in given]
