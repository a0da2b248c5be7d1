"""What tests of several providers share: clocks that stand still."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from providers.upstream import documents


class Clock:
    """Stands still, `ahead` seconds in front of when it was made."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._made = time.monotonic()

    def monotonic(self) -> float:
        return self._made + self.ahead

    time = staticmethod(time.time)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    own = Clock()
    monkeypatch.setattr(documents, "time", own)
    return own


@pytest.fixture
def frozen_time() -> Iterator[None]:
    """Stop the time of day, for tokens that are as old, or as young, as may be."""
    with time_machine.travel(datetime.now(UTC), tick=False):
        yield
