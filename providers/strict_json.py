"""A JSON parser that rejects what other parsers may interpret differently (RFC 8259).

It is built on the parser of the standard library: the faster ones accept duplicate members.
"""

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 32

_ESCAPED_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_UNSTORABLE_ESCAPE = re.compile(r"\\u(0000|[dD][89a-fA-F])")


class NotStrictJSON(ValueError):
    """The bytes are not strict JSON. The message contains the reason and nothing from the bytes."""


def parse(raw: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """Return the JSON value in `raw`. Raises `NotStrictJSON`.

    Rejects duplicate members, NaN and Infinity (also as `1e400`), deep nesting, lone surrogates and NUL.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise NotStrictJSON("it is not UTF-8") from None
    # The depth is checked before the recursive parser runs. Counting brackets first is a shortcut.
    if text.count("[") + text.count("{") > max_depth and _is_deeper(text, max_depth):
        raise NotStrictJSON(f"it is nested deeper than {max_depth} levels")
    try:
        value = _decode(text)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError):
        # ValueError: malformed, or an integer with more digits than Python converts.
        raise NotStrictJSON("it is not well-formed JSON") from None
    # Unescaped, NUL and lone surrogates are rejected by the parser and the decoder above.
    # An escaped backslash begins no other escape. Replaced by a space: removing it could join two surrogates.
    if "\\u" in text and _UNSTORABLE_ESCAPE.search(_ESCAPED_PAIR.sub("", text.replace("\\\\", " "))):
        raise NotStrictJSON("it contains NUL or a lone surrogate")
    return value


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NotStrictJSON("it has a duplicate member")
    return members


def _reject_constant(_name: str) -> NoReturn:
    raise NotStrictJSON("NaN and Infinity are not JSON")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrictJSON("a number is too large")
    return number


_decode = json.JSONDecoder(
    object_pairs_hook=_unique_members, parse_constant=_reject_constant, parse_float=_finite_float
).decode


def _is_deeper(text: str, max_depth: int) -> bool:
    # Once escapes are removed, each quotation mark begins or ends a string: every other part is outside.
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    depth = 0
    for character in outside:
        if character in "[{":
            depth += 1
            if depth > max_depth:
                return True
        elif character in "]}":
            depth -= 1
    return False
