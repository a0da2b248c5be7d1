"""What the caller sends: named strings, declared by a serializer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.core.validators import MaxLengthValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

PARAMETER_MAX_LENGTH = 8192
"""Characters in the value of a parameter, unless it declares less."""


class Parameter(serializers.CharField):
    """One named string that the caller sends, as discovery lists it. Nothing is trimmed or converted."""

    def __init__(
        self,
        *,
        description: str,
        max_length: int = PARAMETER_MAX_LENGTH,
        password: bool = False,
        required: bool = True,
    ) -> None:
        super().__init__(
            help_text=description,
            max_length=max_length,
            required=required,
            trim_whitespace=False,
            allow_blank=True,  # a string like any other: it is for verify() to say what it proves
            style={"input_type": "password"} if password else {},
        )
        # NUL and lone surrogates, which the base class would look for, do not pass the JSON parser.
        self.validators = [MaxLengthValidator(max_length)]

    @property
    def is_password(self) -> bool:
        """Whether a client should hide what is typed."""
        return self.style.get("input_type") == "password"


class _Plain(serializers.Serializer[Any]):
    """Overrides nothing."""


class Declaration:
    """The parameters of an endpoint, prepared once from the serializer that declares them."""

    def __init__(self, serializer: type[serializers.Serializer[Any]]) -> None:
        self.parameters = serializer()
        """One shared instance; only `run_validation` may be called on it."""
        self.declared = cast("Mapping[str, Parameter]", dict(self.parameters.fields))
        """The parameters by the name that discovery shows."""
        self.names: Mapping[str, str] = {name.lower(): name for name in self.declared}
        """The names by their lower-case spelling: clients send `username` for `Username`."""
        self.required = tuple(name for name, field in self.declared.items() if field.required)
        """The names of those that must be given."""
        self._max_lengths = _max_lengths(self.parameters)

    def validate(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return what `run_validation` returns for `given`, which holds all that are required.

        Raises DRF's ValidationError.
        """
        if self._max_lengths is None:
            validated: dict[str, str] = self.parameters.run_validation(given)
            return validated
        checked = {}
        for name, max_length in self._max_lengths.items():
            if name in given:
                value = checked[name] = given[name]
                if len(value) > max_length:
                    raise ValidationError({name: "too long"}, code="max_length")
        return checked


def _max_lengths(serializer: serializers.Serializer[Any]) -> Mapping[str, int] | None:
    """Return the length of each parameter, if that is all that the serializer validates; otherwise None.

    It is for a class that declares parameters and defines nothing else: no method, no `Meta`.
    """
    classes = set(type(serializer).__mro__) - set(serializers.Serializer.__mro__)
    if any(vars(one).keys() - vars(_Plain).keys() for one in classes):
        return None
    lengths = {}
    for name, field in serializer.fields.items():
        if type(field) is not Parameter or field.max_length is None:
            return None
        # To DRF, a dot in a name means an object in an object, and `empty_values` a method of its own.
        if "." in name or hasattr(serializer, f"validate_{name}"):
            return None
        lengths[name] = field.max_length
    return lengths
