"""A JSON parser that accepts what RFC 8259 says and nothing that two readers could read differently.

The standard library's parser, closed up: no duplicate members, no NaN or Infinity (not even spelt `1e400`),
no deep nesting, no lone surrogates, no NUL. It is used for request bodies and for both JSON parts of a JWS.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""Characters that neither UTF-8 nor PostgreSQL can hold."""


class NotStrictJSON(ValueError):
    """The bytes are not strict JSON. The message says why and repeats nothing of them."""


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Return the JSON value in `raw`. Raises `NotStrictJSON`."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrictJSON("it is not UTF-8") from None
    # Each level opens with a bracket: few brackets need no closer look, many are counted before the
    # recursive parser meets them.
    if text.count("[") + text.count("{") > max_depth and _depth(text) > max_depth:
        raise NotStrictJSON(f"it is nested deeper than {max_depth} levels")
    try:
        value = _decode(text)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError):
        # ValueError: malformed, or an integer of more digits than Python converts.
        raise NotStrictJSON("it is not well-formed JSON") from None
    # Only an escape can smuggle these in: the decoding above and the parser refuse them in the clear.
    if "\\u" in text and _holds_unstorable(value):
        raise NotStrictJSON("it holds a NUL or half of a surrogate pair")
    return value


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJSON("a member is given twice")
    return members


def _constant(_name: str) -> NoReturn:
    raise NotStrictJSON("NaN and Infinity are not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrictJSON("a number is too large")
    return number


_decode = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_constant, parse_float=_finite).decode


def _depth(text: str) -> int:
    """Count the deepest nesting of brackets outside strings, without recursion."""
    depth = deepest = 0
    for token in re.finditer(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        if token[0] in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif token[0] in "]}":
            depth -= 1
    return deepest


def _holds_unstorable(value: Any) -> bool:
    match value:
        case str():
            return UNSTORABLE.search(value) is not None
        case dict():
            return any(_holds_unstorable(k) or _holds_unstorable(v) for k, v in value.items())
        case list():
            return any(map(_holds_unstorable, value))
        case _:
            return False
