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

_ESCAPED_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_UNSTORABLE_ESCAPE = re.compile(r"\\u(0000|[dD][89a-fA-F])")


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
    if text.count("[") + text.count("{") > max_depth and _is_deeper(text, max_depth):
        raise NotStrictJSON(f"it is nested deeper than {max_depth} levels")
    try:
        value = _decode(text)
    except NotStrictJSON:
        raise
    except (ValueError, RecursionError):
        # ValueError: malformed, or an integer of more digits than Python converts.
        raise NotStrictJSON("it is not well-formed JSON") from None
    # Only an escape can smuggle these in: the decoding above and the parser refuse them in the clear.
    if "\\u" in text and _escapes_unstorable(text):
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


def _is_deeper(text: str, most: int) -> bool:
    """Whether brackets outside strings nest deeper than `most`. A string that never ends hides the rest."""
    # Without escapes, each quotation mark begins or ends a string: every other part is outside.
    outside = "".join(text.replace("\\\\", "").replace('\\"', "").split('"')[::2])
    depth = 0
    for character in outside:
        if character in "[{":
            depth += 1
            if depth > most:
                return True
        elif character in "]}":
            depth -= 1
    return False


def _escapes_unstorable(text: str) -> bool:
    """Whether an escape in this JSON, which is well-formed, stands for NUL or for half of a pair."""
    # An escaped backslash begins no other escape, and must not bring two halves together by its absence.
    escapes = text.replace("\\\\", " ")
    return _UNSTORABLE_ESCAPE.search(_ESCAPED_PAIR.sub("", escapes)) is not None
