"""The keys that are refused until the end of their windows."""

import time
from collections import OrderedDict

MAX_BLOCKS = 10_000

CLEAN_UP_INTERVAL = 1.0


class Blocks:
    """A table of keys in the memory of this process. `ends` is empty unless something is blocked.

    So a request costs nothing but the question if it is empty. When there are `MAX_BLOCKS`, a new block
    replaces the oldest.
    """

    def __init__(self) -> None:
        self.ends: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._clean_up_at = 0.0

    def add(self, key: tuple[str, str], seconds: float) -> None:
        self.ends.pop(key, None)
        if len(self.ends) >= MAX_BLOCKS:
            self.ends.popitem(last=False)
        self.ends[key] = time.monotonic() + seconds

    def remaining(self, key: tuple[str, str]) -> float:
        """Return the seconds until the block of the key ends, 0 if it is not blocked."""
        now = time.monotonic()
        if now >= self._clean_up_at:
            self._clean_up_at = now + CLEAN_UP_INTERVAL
            for each in [each for each, end in self.ends.items() if end <= now]:
                del self.ends[each]
        return max(self.ends.get(key, now) - now, 0.0)
