"""What a service declares is what DRF would check, whether DRF is called for it or not."""

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
from ags.api.request.parameters import check
from ags.api.views.sign_on_with_session_token import SCHEMA
from providers.contract import Parameter, ParameterSchema
from providers.registry import provider_configs

Given = list[tuple[str, str]]
Outcome = list[tuple[str, Any]] | tuple[Error, str | None]


def refuse_x(value: Any) -> None:
    if "x" in str(value):
        raise ValidationError("x")


class Upper(Parameter):
    def to_internal_value(self, data: Any) -> str:
        return str(data).upper()


class Base(serializers.Serializer[Any]):
    def validate(self, attrs: Any) -> Any:
        refuse_x(attrs)
        return attrs


class Mixin:
    def validate_a(self, value: str) -> str:
        if len(value) > 1:
            raise DjangoValidationError("a")
        return value * 2


class Meta:
    validators = [refuse_x]


def doubled(self: Any, data: Any = serializers.empty) -> Any:
    return {name: value * 2 for name, value in serializers.Serializer.run_validation(self, data).items()}


def reversed_fields(self: Any) -> Any:
    return dict(reversed(serializers.Serializer.get_fields(self).items()))


PLAIN = (serializers.Serializer,)
PARENT = type("Parent", PLAIN, {"a": Parameter(description="a", max_length=3)})
CLASSES: dict[str, tuple[tuple[type, ...], Mapping[str, Any]]] = {
    "defines nothing": (PLAIN, {"__doc__": "What the caller sends."}),
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
"""Names of which DRF makes something else."""


fields = st.builds(Parameter, description=st.just("x"), max_length=st.integers(0, 3), required=st.booleans())
bodies = st.dictionaries(st.sampled_from(["a", "b", "Token", *ODD]), fields, max_size=3)


def inputs(schema: ParameterSchema) -> Iterator[Given]:
    """All ways in which each is missing, empty, short or long; in another order, and in another case."""
    names = [*schema.fields][::-1]
    for values in product((None, "", "x", "y\0é "), repeat=len(names)):
        yield [(name.upper(), value) for name, value in zip(names, values, strict=True) if value is not None]
    yield [("Unknown", "x"), *((name, "x") for name in ODD)]


def outcome_of(call: Any, *args: Any) -> Outcome | str:
    try:
        return list(call(*args).items())
    except ApiError as refused:
        return refused.error, refused.parameter
    except Exception as crash:  # noqa: BLE001 - some of what is drawn is no fit declaration
        return type(crash).__name__


def check_by_drf(schema: ParameterSchema, given: Given) -> Mapping[str, str]:
    """Say again, with DRF alone, what is checked and in which order."""
    named = {schema.names.get(name.lower(), ""): value for name, value in given}
    if "" in named:
        unknown = next(name for name, _ in given if name.lower() not in schema.names)
        raise ApiError(PARAMETER_UNKNOWN, parameter=unknown)
    for name, field in schema.fields.items():
        if field.required and name not in named:
            raise ApiError(PARAMETER_MISSING, parameter=name)
    try:
        checked: dict[str, str] = schema.serializer.run_validation(named)
    except ValidationError as problem:
        at_fault = next(iter(problem.detail), None) if isinstance(problem.detail, dict) else None
        raise ApiError(PARAMETER_INVALID, parameter=at_fault) from None
    return checked


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(st.just("defines nothing") | st.sampled_from([*CLASSES]), bodies)
def test_it_checks_what_drf_checks(of: str, body: dict[str, Any]) -> None:
    bases, more = CLASSES[of]
    schema = ParameterSchema(type("Parameters", bases, {**body, **more}))
    for sent in inputs(schema):
        assert outcome_of(check, schema, sent) == outcome_of(check_by_drf, schema, sent)


def test_no_request_to_a_shipped_provider_costs_a_validation_by_drf(monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(serializers.Serializer, "run_validation", called)
    strategies = [config.instance for config in provider_configs() if config.instance is not None]
    assert len(strategies) > 1
    for schema in (SCHEMA, *(strategy.parameter_schema for strategy in strategies)):
        assert check(schema, [(name, "x") for name in schema.fields])
