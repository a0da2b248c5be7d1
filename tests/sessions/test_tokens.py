"""The text of session tokens."""

from __future__ import annotations

from collections import Counter

from ags.sessions.tokens.opaque import LENGTH, new_token


def test_each_character_of_a_token_is_one_of_32_that_are_equally_likely() -> None:
    tokens = [new_token() for _ in range(1000)]
    assert {len(token) for token in tokens} == {LENGTH}
    assert len(set(tokens)) == len(tokens)
    counts = Counter("".join(tokens))
    assert set(counts) == set("abcdefghijklmnopqrstuvwxyz234567")
    # 812 are expected, and the bounds are 11 standard deviations away.
    assert 500 < min(counts.values()) <= max(counts.values()) < 1120
