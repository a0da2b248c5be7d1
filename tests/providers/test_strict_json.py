"""The strict JSON parser."""

import json

import pytest

from providers.strict_json import NotStrictJSON, parse

ACCEPTED = {
    "an object": '{"a": [1, -2.5, 1e3, true, false, null, "x"]}',
    "32 levels": "[" * 32 + "]" * 32,
    "many brackets, but shallow": "[" + ",".join(["[]"] * 500) + "]",
    "brackets in a string": json.dumps({"a": "[" * 5000}),
    "quotes and brackets in a string": json.dumps({"a": '"[' * 500}),
    "an escaped pair of surrogates": r'{"a": "\ud83d\ude00"}',
    "two escaped pairs": r'["\ud83d\ude00\uD83D\uDE00"]',
    "a literal backslash before u0000": r'{"a": "\\u0000"}',
    "white space": ' \t\r\n{"a" : 1}\n',
    "a large but finite number": "1e308",
}

REJECTED = {
    "nothing": "",
    "two values": "1 2",
    "a trailing comma": "[1,]",
    "single quotes": "{'a': 1}",
    "a comment": "[1] // no",
    "duplicate members": '{"a": 1, "a": 2}',
    "duplicate members further down": '{"a": [{"b": 1, "b": 1}]}',
    "duplicate members, one escaped": r'{"a": 1, "\u0061": 2}',
    "NaN": "[NaN]",
    "Infinity": "[Infinity]",
    "minus Infinity": "[-Infinity]",
    "infinity by its exponent": "[1e400]",
    "minus infinity by its exponent": "[-1e400]",
    "an integer of 5,000 digits": "1" * 5000,
    "33 levels": "[" * 33 + "]" * 33,
    "990 open brackets": "[" * 990,
    "40,000 open brackets": "[" * 40_000,
    "40,000 nested objects": '{"a":' * 40_000,
    "an unfinished string with brackets": '"' + "[" * 40,
    "an escaped NUL": r'{"a": "\u0000"}',
    "an escaped NUL in a name": r'{"\u0000": 1}',
    "a NUL": '"\0"',
    "a lone high surrogate": r'["\ud800"]',
    "a lone low surrogate": r'["\udfff"]',
    "two halves with a backslash between": r'["\ud83d\\\ude00"]',
    "a surrogate in a name": r'{"a": {"\uD800": 1}}',
    "a control character": '"\n"',
    "a byte order mark": "\ufeff{}",
}


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=ACCEPTED)
def test_accepts_json(text: str) -> None:
    assert parse(text.encode()) == json.loads(text)


@pytest.mark.parametrize("text", REJECTED.values(), ids=REJECTED)
def test_rejects_ambiguous_json(text: str) -> None:
    with pytest.raises(NotStrictJSON):
        parse(text.encode())


@pytest.mark.parametrize(
    "raw", [b'"\xff"', b'"\xed\xa0\x80"', '{"a": 1}'.encode("utf-16"), '{"a": 1}'.encode("utf-32")]
)
def test_rejects_other_encodings(raw: bytes) -> None:
    with pytest.raises(NotStrictJSON):
        parse(raw)


def test_the_message_contains_nothing_from_the_input() -> None:
    with pytest.raises(NotStrictJSON) as complaint:
        parse(b'{"marker-4711": 1, "marker-4711": 2}')
    assert "4711" not in str(complaint.value)


def test_the_maximum_depth_can_be_lowered() -> None:
    assert parse(b"[[[]]]", max_depth=3) == [[[]]]
    with pytest.raises(NotStrictJSON):
        parse(b"[[[[]]]]", max_depth=3)
