"""The table of blocks."""

from __future__ import annotations

import pytest

from ags.limits import blocks
from ags.limits.blocks import Blocks


def test_a_block_that_begins_again_replaces_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that are answered at the same time block their client several times."""
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 2)
    table, one, other = Blocks(), ("nagra", "192.0.2.1"), ("nagra", "192.0.2.2")
    for key in (one, other, other):
        table.add(key, 60)
    assert table.remaining(one) > 0
    assert table.remaining(other) > 0
