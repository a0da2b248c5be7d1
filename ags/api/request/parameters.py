"""Parsing and validation of the member `parameters` of a body."""

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


def read_parameters(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the pairs of name and value, after the checks that do not depend on the service.

    Raises ApiError (400).
    """
    members = body.get("parameters")
    if not isinstance(members, list):
        raise ApiError(PARAMETERS_MALFORMED)
    pairs: list[tuple[str, str]] = []
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
        pairs.append((name, value))
    return pairs


def validate_parameters(schema: ParameterSchema, pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """Raises ApiError (400)."""
    values = {}
    for name, value in pairs:
        declared = schema.names.get(name.lower())
        if declared is None:
            # Not with the name, which may be anything: a password, even.
            raise ApiError(PARAMETER_UNKNOWN, parameter=name, facts={"declared": [*schema.fields]})
        values[declared] = value
    for declared in schema.required:
        if declared not in values:
            raise ApiError(PARAMETER_MISSING, parameter=declared, facts={"parameter": declared})
    try:
        return schema.validate(values)
    except ValidationError as error:
        invalid = next(iter(error.detail), None) if isinstance(error.detail, dict) else None
        raise ApiError(PARAMETER_INVALID, parameter=invalid, facts={"parameter": invalid}) from None
