"""The parameters that a caller sends: named strings, declared by a serializer."""

from collections.abc import Mapping
from typing import Any, cast

from django.core.validators import MaxLengthValidator
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

PARAMETER_MAX_LENGTH = 8192  # characters; the default


class Parameter(serializers.CharField):
    """A named string from the caller, listed in discovery. AGS neither trims nor converts it.

    `username`: the name of the subscriber whose password another parameter contains. AGS limits wrong
    passwords by it.
    """

    def __init__(
        self,
        *,
        description: str,
        max_length: int = PARAMETER_MAX_LENGTH,
        password: bool = False,
        username: bool = False,
        required: bool = True,
    ) -> None:
        super().__init__(
            help_text=description,
            max_length=max_length,
            required=required,
            trim_whitespace=False,
            allow_blank=True,  # verify() decides about the empty string
            style={"input_type": "password"} if password else {},
        )
        self.is_username = username
        # The base class rejects NUL and lone surrogates. The JSON parser has done so already.
        self.validators = [MaxLengthValidator(max_length)]

    @property
    def is_password(self) -> bool:
        return self.style.get("input_type") == "password"


class _EmptySerializer(serializers.Serializer[Any]):
    """Has only the attributes that every serializer class has."""


class ParameterSchema:
    """The parameters of an endpoint, computed once from the serializer that declares them."""

    def __init__(self, serializer: type[serializers.Serializer[Any]]) -> None:
        self.serializer = serializer()
        """Shared by all threads: call only `run_validation`."""
        self.fields = cast("Mapping[str, Parameter]", dict(self.serializer.fields))
        self.names: Mapping[str, str] = {name.lower(): name for name in self.fields}
        """The names by their lower-case form: names of parameters are case-insensitive."""
        self.required = tuple(name for name, field in self.fields.items() if field.required)
        self.username = next(
            (name for name, field in self.fields.items() if getattr(field, "is_username", False)), None
        )
        self._max_lengths = _max_lengths(self.serializer)

    def validate(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the validated parameters. `given` must contain all required parameters.

        The result is that of DRF's `run_validation`. Raises DRF's ValidationError.
        """
        if self._max_lengths is None:
            return cast("dict[str, str]", self.serializer.run_validation(given))
        validated = {}
        for name, max_length in self._max_lengths.items():
            if name in given:
                value = validated[name] = given[name]
                if len(value) > max_length:
                    raise ValidationError({name: "too long"}, code="max_length")
        return validated


def _max_lengths(serializer: serializers.Serializer[Any]) -> Mapping[str, int] | None:
    """Return the maximum lengths if the serializer class has parameters and nothing else; otherwise None."""
    classes = set(type(serializer).__mro__) - set(serializers.Serializer.__mro__)
    if any(vars(base).keys() - vars(_EmptySerializer).keys() for base in classes):
        return None
    lengths = {}
    for name, field in serializer.fields.items():
        if type(field) is not Parameter or field.max_length is None:
            return None
        # DRF reads a dot in a name as a nested object, and itself defines `validate_empty_values`.
        if "." in name or hasattr(serializer, f"validate_{name}"):
            return None
        lengths[name] = field.max_length
    return lengths
