"""Settings for public keys."""

from typing import Any

from django import forms

from providers.jose import PUBLIC_KEY_TYPES


class AlgorithmsField(forms.MultipleChoiceField):
    def __init__(self, **kwargs: Any) -> None:
        options = {
            "choices": [(name, name) for name in PUBLIC_KEY_TYPES],
            "widget": forms.CheckboxSelectMultiple,
            "help_text": "A key is used only with a selected algorithm. An RSA key without alg is used only "
            "if either RS256 or PS256 is selected, but not both.",
        }
        super().__init__(**{**options, **kwargs})

    def clean(self, value: Any) -> list[str]:
        """Return the selected algorithms, sorted and without duplicates."""
        selected = super().clean(value)
        return [name for name in PUBLIC_KEY_TYPES if name in selected]
