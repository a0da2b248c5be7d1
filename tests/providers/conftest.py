"""What tests of several providers share: the clock of the documents, which they can put forward."""

from __future__ import annotations

import time

import pytest

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
