"""The memory and time that counting different keys takes: `python -m bench.limits`.

Counts each key once, in the event loop: 20,000 keys with the MemoryStorage of the library `limits`, and
1,000,000 with the counters of AGS. Prints the time, the longest count, and the memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import FixedWindowRateLimiter

from ags.limits.memory import LocalCounters

SECONDS = 10

Count = Callable[[str], Awaitable[object]]


def _memory_storage() -> Count:
    limiter, limit = FixedWindowRateLimiter(MemoryStorage()), RateLimitItemPerSecond(5000, SECONDS)
    return lambda key: limiter.hit(limit, "tenant", key)


def _local_counters() -> Count:
    counters = LocalCounters(SECONDS)

    async def count(key: str) -> None:
        counters.count(("tenant", key))

    return count


CASES = {"MemoryStorage": (_memory_storage, 20_000), "LocalCounters": (_local_counters, 1_000_000)}


def _resident_megabytes() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


async def measure(name: str) -> str:
    """Count the keys of a case; return a line of the table."""
    prepare, number = CASES[name]
    count = prepare()
    memory, longest, start = _resident_megabytes(), 0.0, time.perf_counter()
    for key in range(number):
        begun = time.perf_counter()
        await count(str(key))
        await asyncio.sleep(0)  # let the tasks of the storage run, as other requests would
        longest = max(longest, time.perf_counter() - begun)
    taken = time.perf_counter() - start
    return (
        f"{name}{number:>10,} keys{taken:8.2f} s, longest {longest * 1000:5.1f} ms,"
        f"{_resident_megabytes() - memory:5.0f} MB"
    )


def main() -> None:
    """Measure and print."""
    for name in CASES:
        print(asyncio.run(measure(name)))


if __name__ == "__main__":
    main()
