"""Fixtures shared by tests of several providers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from providers.upstream import documents


class Clock:
    """A stopped clock, `ahead` seconds after its creation."""

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
    """Stop the time of day, to test exact limits of tokens."""
    with time_machine.travel(datetime.now(UTC), tick=False):
        yield
