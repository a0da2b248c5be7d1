"""The facts that explain a refusal: JSON values by name, without secrets, tokens and account IDs."""

from typing import Any

MAX_FACT_LENGTH = 64
"""Characters of a string."""

MAX_FACT_ITEMS = 5

_MAX_NUMBER = 10**15  # Python and JSON convert longer integers slowly, or not at all


def clean_fact(value: Any, max_length: int = MAX_FACT_LENGTH) -> Any:
    """Return a value that a client may have chosen so that it can be stored and displayed.

    Strings are cut, and have only printable characters. Numbers become integers. Arrays are cut, too.
    """
    match value:
        case None | bool():
            return value
        case int() | float():
            return round(max(-_MAX_NUMBER, min(_MAX_NUMBER, value)))
        case str():
            text = value if len(value) <= max_length else f"{value[: max_length - 1]}…"
            return "".join(character if character.isprintable() else "?" for character in text)
        case list() | tuple():
            items = value[:MAX_FACT_ITEMS]
            return [clean_fact(item, max_length) if isinstance(item, str) else _type(item) for item in items]
    return _type(value)


def _type(value: Any) -> str:
    return f"({json_type(value)})"


def json_type(value: Any) -> str:
    """Return the name of the type of a JSON value."""
    return _JSON_TYPES.get(type(value), "object")


_JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "number",
    float: "number",
    list: "array",
    type(None): "null",
}
