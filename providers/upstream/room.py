"""How many requests may wait for upstreams, and how long.

A request that waits for an upstream holds a thread. Where an upstream hangs, those that wait for it are so
few that other upstreams have places, and strategies that need no upstream have threads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable

PLACES = 16
"""Calls that may be under way in one process. `manage.py serve` has that many more threads for strategies."""

PLACES_OF_ONE = 8
"""Of these, for one upstream: a second one that hangs finds room, too."""

_T = TypeVar("_T")


class Room:
    """Places to wait in, and the threads that make the calls. An upstream is named as `host:port`."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=PLACES, thread_name_prefix="upstream")

    @contextmanager
    def place(self, upstream: str) -> Iterator[None]:
        """Hold a slot. Raises `UpstreamUnavailable(OVERLOADED)` if none is free."""
        self._enter(upstream)
        try:
            yield
        finally:
            self._leave(upstream)

    def within(self, deadline: float, upstream: str, call: Callable[[], _T]) -> _T:
        """Call `call` in a thread and return its result. Raises what `call` raises.

        Raises `UpstreamUnavailable(OVERLOADED)` if no slot is free, and `UpstreamUnavailable(TIMEOUT)` after
        `deadline` seconds. The call then continues and keeps its slot, so it must also limit its own time.
        This limit is for what the call cannot limit, such as name resolution.
        """
        self._enter(upstream)
        # The place is free again when the call has really ended, and not when nobody waits for it any more.
        try:
            future = self._threads.submit(call)
        except RuntimeError:  # the machine has no thread left, or the process ends
            self._leave(upstream)
            raise UpstreamUnavailable(UpstreamFailure.OVERLOADED) from None
        future.add_done_callback(lambda _: self._leave(upstream))
        try:
            return future.result(deadline)
        except TimeoutError:
            raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None

    def _enter(self, upstream: str) -> None:
        with self._lock:
            if self._taken.total() >= PLACES or self._taken[upstream] >= PLACES_OF_ONE:
                raise UpstreamUnavailable(UpstreamFailure.OVERLOADED)
            self._taken[upstream] += 1

    def _leave(self, upstream: str) -> None:
        with self._lock:
            self._taken[upstream] -= 1
            if not self._taken[upstream]:
                del self._taken[upstream]


requests = Room()
"""Where requests wait: each holds a thread for strategies that block meanwhile."""

background = Room()
"""Where documents are fetched: whoever waits for one has a place among the requests."""

within = requests.within
