"""Random tokens."""

from __future__ import annotations

from collections import Counter

from ags.sessions.tokens.opaque import TOKEN_LENGTH, new_token


def test_the_characters_of_a_token_are_uniformly_distributed() -> None:
    tokens = [new_token()[0] for _ in range(1000)]
    assert {len(token) for token in tokens} == {TOKEN_LENGTH}
    assert len(set(tokens)) == len(tokens)
    counts = Counter("".join(tokens))
    assert set(counts) == set("abcdefghijklmnopqrstuvwxyz234567")
    # 812 are expected; the bounds are 11 standard deviations away.
    assert 500 < min(counts.values()) <= max(counts.values()) < 1120
