"""`validate_parameters` has the same results as DRF, but without calling DRF for simple declarations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
from django.core.exceptions import ValidationError as DjangoValidationError
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework import serializers
from rest_framework.exceptions import ValidationError

from ags.api.errors import PARAMETER_INVALID, PARAMETER_MISSING, PARAMETER_UNKNOWN, ApiError, Error
from ags.api.request.parameters import validate_parameters
from ags.api.views.sign_on import SESSION_TOKEN_SCHEMA
from providers.contract import Parameter, ParameterSchema
from providers.registry import provider_configs

Pairs = list[tuple[str, str]]
Outcome = list[tuple[str, Any]] | tuple[Error, str | None]


def reject_x(value: Any) -> None:
    if "x" in str(value):
        raise ValidationError("x")


class Upper(Parameter):
    def to_internal_value(self, data: Any) -> str:
        return str(data).upper()


class Base(serializers.Serializer[Any]):
    def validate(self, attrs: Any) -> Any:
        reject_x(attrs)
        return attrs


class Mixin:
    def validate_a(self, value: str) -> str:
        if len(value) > 1:
            raise DjangoValidationError("a")
        return value * 2


class Meta:
    validators = [reject_x]


def doubled(self: Any, data: Any = serializers.empty) -> Any:
    return {name: value * 2 for name, value in serializers.Serializer.run_validation(self, data).items()}


def reversed_fields(self: Any) -> Any:
    return dict(reversed(serializers.Serializer.get_fields(self).items()))


PLAIN = (serializers.Serializer,)
PARENT = type("Parent", PLAIN, {"a": Parameter(description="a", max_length=3)})
CLASSES: dict[str, tuple[tuple[type, ...], Mapping[str, Any]]] = {
    "defines nothing": (PLAIN, {"__doc__": "Parameters."}),
    "defines nothing, nor does its parent": ((PARENT,), {}),
    "has no parameter of its parent": ((PARENT,), {"a": None}),
    "has a parameter of another kind": (PLAIN, {"b": Upper(description="b", max_length=2)}),
    "validate": (PLAIN, {"validate": Base.validate}),
    "validate, in its parent": ((Base,), {}),
    "validate_a": (PLAIN, {"validate_a": Mixin.validate_a}),
    "validate_a, in a mixin": ((Mixin, *PLAIN), {}),
    "validate_a, in a mixin behind": ((*PLAIN, Mixin), {}),
    "run_validation": (PLAIN, {"run_validation": doubled}),
    "to_internal_value": (PLAIN, {"to_internal_value": lambda self, data: dict(data)}),
    "get_fields": (PLAIN, {"get_fields": reversed_fields}),
    "Meta": (PLAIN, {"Meta": Meta}),
}
ODD = ["c.d", "empty_values"]
"""Names that DRF treats specially."""


fields = st.builds(Parameter, description=st.just("x"), max_length=st.integers(0, 3), required=st.booleans())
bodies = st.dictionaries(st.sampled_from(["a", "b", "Token", *ODD]), fields, max_size=3)


def inputs(schema: ParameterSchema) -> Iterator[Pairs]:
    """Yield all combinations of missing, empty, short and long values, in another order and case."""
    names = [*schema.fields][::-1]
    for values in product((None, "", "x", "y\0é "), repeat=len(names)):
        yield [(name.upper(), value) for name, value in zip(names, values, strict=True) if value is not None]
    yield [("Unknown", "x"), *((name, "x") for name in ODD)]


def call_outcome(call: Any, *args: Any) -> Outcome | str:
    try:
        return list(call(*args).items())
    except ApiError as error:
        return error.error, error.parameter
    except Exception as error:  # noqa: BLE001 - some drawn declarations are invalid
        return type(error).__name__


def validate_with_drf(schema: ParameterSchema, pairs: Pairs) -> Mapping[str, str]:
    """The same validation, with DRF only."""
    values = {schema.names.get(name.lower(), ""): value for name, value in pairs}
    if "" in values:
        unknown = next(name for name, _ in pairs if name.lower() not in schema.names)
        raise ApiError(PARAMETER_UNKNOWN, parameter=unknown)
    for name, field in schema.fields.items():
        if field.required and name not in values:
            raise ApiError(PARAMETER_MISSING, parameter=name)
    try:
        validated: dict[str, str] = schema.serializer.run_validation(values)
    except ValidationError as error:
        invalid = next(iter(error.detail), None) if isinstance(error.detail, dict) else None
        raise ApiError(PARAMETER_INVALID, parameter=invalid) from None
    return validated


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(st.just("defines nothing") | st.sampled_from([*CLASSES]), bodies)
def test_validation_has_the_same_result_as_drf(class_name: str, body: dict[str, Any]) -> None:
    bases, more = CLASSES[class_name]
    schema = ParameterSchema(type("Parameters", bases, {**body, **more}))
    for pairs in inputs(schema):
        assert call_outcome(validate_parameters, schema, pairs) == call_outcome(
            validate_with_drf, schema, pairs
        )


def test_included_providers_need_no_validation_by_drf(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(serializers.Serializer, "run_validation", fail)
    strategies = [config.instance for config in provider_configs() if config.instance is not None]
    assert len(strategies) > 1
    for schema in (SESSION_TOKEN_SCHEMA, *(strategy.parameter_schema for strategy in strategies)):
        assert validate_parameters(schema, [(name, "x") for name in schema.fields])
