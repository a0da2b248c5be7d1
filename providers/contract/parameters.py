"""What the caller sends: named strings, declared by a serializer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from django.core.validators import MaxLengthValidator
from rest_framework import serializers

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


class Declaration:
    """The parameters of an endpoint, prepared once from the serializer that declares them."""

    def __init__(self, serializer: type[serializers.Serializer[Any]]) -> None:
        self.parameters = serializer()
        """One shared instance; only `run_validation` may be called on it."""
        self.declared = cast("Mapping[str, Parameter]", dict(self.parameters.fields))
        """The parameters by the name that discovery shows."""
        self.names: Mapping[str, str] = {name.lower(): name for name in self.declared}
        """The names by their lower-case spelling: clients send `username` for `Username`."""
