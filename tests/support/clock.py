"""A clock that tests set."""

from __future__ import annotations

import time


class StoppedClock:
    """A stopped clock, `ahead` seconds after its creation."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._made = time.monotonic()

    def monotonic(self) -> float:
        return self._made + self.ahead

    time = staticmethod(time.time)
