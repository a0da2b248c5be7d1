"""Counters in the memory of this process."""

import time
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MAX_COUNTERS = 50_000
"""When there are as many, a new counter replaces the oldest. Each takes about 500 bytes."""


@dataclass(slots=True)
class _Counter:
    value: int
    ends_at: float


class LocalCounters:
    """Counters of fixed windows with the same length.

    The MemoryStorage of the library `limits` has no maximum, and reads all its counters in the event loop
    each time that it counts.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        # Sorted by the end of their windows. Unlike a dict, it finds its first entry in constant time after
        # others were removed.
        self._counters: OrderedDict[Hashable, _Counter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def count(self, key: Hashable) -> tuple[int, float]:
        """Count the key once; return its count, and the seconds until its window ends."""
        now = time.monotonic()
        counter = self._counters.get(key)
        if counter is None or counter.ends_at <= now:
            counter = self._start_window(key, now)
        counter.value += 1
        return counter.value, counter.ends_at - now

    def undo(self, key: Hashable) -> None:
        """Take back a count, unless its window has ended."""
        counter = self._counters.get(key)
        if counter is not None and counter.value > 0:
            counter.value -= 1

    def _start_window(self, key: Hashable, now: float) -> _Counter:
        counters = self._counters
        counters.pop(key, None)
        while counters and (len(counters) >= MAX_COUNTERS or next(iter(counters.values())).ends_at <= now):
            counters.popitem(last=False)
        counter = counters[key] = _Counter(0, now + self.seconds)
        return counter
