"""Clocks that tests set."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from providers.contract.clock import database_clock


class StoppedClock:
    """A stopped clock, `ahead` seconds after its creation."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._made = time.monotonic()

    def monotonic(self) -> float:
        return self._made + self.ahead

    time = staticmethod(time.time)


@contextmanager
def unmeasured_clock() -> Iterator[None]:
    """Let this process use the clock of the machine, which time_machine moves, as it does on SQLite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database_clock, "_measurement", None)
        patch.setattr(database_clock, "add", lambda *_: None)
        yield
