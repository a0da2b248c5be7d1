"""The member `parameters`: its shape, and then its names and values as the service declares them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rest_framework.exceptions import ValidationError

from ags.api.errors import (
    PARAMETER_INVALID,
    PARAMETER_MISSING,
    PARAMETER_REPEATED,
    PARAMETER_UNKNOWN,
    PARAMETERS_MALFORMED,
    ApiError,
)
from providers.contract import PARAMETER_MAX_LENGTH, ParameterSchema

NAME_MAX_LENGTH = 128


def read(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of name and value, checked as far as can be without knowing the service.

    Raises ApiError (400).
    """
    members = body.get("parameters")
    if not isinstance(members, list):
        raise ApiError(PARAMETERS_MALFORMED)
    given: list[tuple[str, str]] = []
    seen: set[str] = set()
    for member in members:
        name = member.get("name") if isinstance(member, dict) else None
        if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX_LENGTH:
            raise ApiError(PARAMETERS_MALFORMED)
        if name.lower() in seen:
            raise ApiError(PARAMETER_REPEATED, parameter=name)
        value = member.get("value")
        if not isinstance(value, str) or len(value) > PARAMETER_MAX_LENGTH:
            raise ApiError(PARAMETER_INVALID, parameter=name)
        seen.add(name.lower())
        given.append((name, value))
    return given


def check(schema: ParameterSchema, given: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Return the parameters under their declared names, checked as declared. Raises ApiError (400)."""
    named = {}
    for name, value in given:
        declared = schema.names.get(name.lower())
        if declared is None:
            raise ApiError(PARAMETER_UNKNOWN, parameter=name)
        named[declared] = value
    for declared in schema.required:
        if declared not in named:
            raise ApiError(PARAMETER_MISSING, parameter=declared)
    try:
        return schema.validate(named)
    except ValidationError as problem:
        at_fault = next(iter(problem.detail), None) if isinstance(problem.detail, dict) else None
        raise ApiError(PARAMETER_INVALID, parameter=at_fault) from None
