"""Bulkheads: limits for the number of concurrent calls to upstreams."""

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import ClassVar, TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable

MAX_CONCURRENT_CALLS = 16  # per process; `manage.py serve` adds as many threads
MAX_CALLS_PER_UPSTREAM = 8  # fewer, so that one upstream cannot take all slots
ANSWERED = "answered"  # the outcome of a call without `UpstreamFailure`
_T = TypeVar("_T")


class Bulkhead:
    """Limits the concurrent calls to upstreams, in total and to each, and makes them in its own threads.

    An upstream is named `host:port`. One that does not respond leaves slots for others, and threads for
    strategies without an upstream.
    """

    observers: ClassVar[list[Callable[[str, str, float], None]]] = []
    """Called after a call, in the thread of its caller, with the upstream, the outcome and the seconds."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._calls: Counter[tuple[str, ...]] = Counter()
        self._seconds: defaultdict[tuple[str, ...], float] = defaultdict(float)
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(max_workers=MAX_CONCURRENT_CALLS, thread_name_prefix="upstream")

    @property
    def taken(self) -> int:
        """The number of slots that are not free."""
        return self._taken.total()

    def read_calls(self) -> tuple[dict[tuple[str, ...], int], dict[tuple[str, ...], float]]:
        """Return the number of calls by (upstream, outcome), and the seconds that they took by (upstream,).

        The outcome is ANSWERED or the value of an `UpstreamFailure`.
        """
        with self._lock:
            return dict(self._calls), dict(self._seconds)

    @contextmanager
    def slot(self, upstream: str) -> Iterator[None]:
        """Hold a slot. Raises `UpstreamUnavailable(OVERLOADED)` if none is free."""
        self._acquire(upstream)
        try:
            yield
        finally:
            self._release(upstream)

    def run(self, deadline: float, upstream: str, call: Callable[[], _T]) -> _T:
        """Call `call` in a thread and return its result. Raises what `call` raises.

        Raises `UpstreamUnavailable(OVERLOADED)` if no slot is free, and `UpstreamUnavailable(TIMEOUT)` after
        `deadline` seconds. The call then continues and keeps its slot, so it must also limit its own time.
        This limit is for what the call cannot limit, such as name resolution.
        """
        started_at, outcome = time.monotonic(), ANSWERED
        try:
            return self._run(deadline, upstream, call)
        except UpstreamUnavailable as error:
            outcome = error.failure.value
            raise
        finally:
            seconds = time.monotonic() - started_at
            with self._lock:
                self._calls[upstream, outcome] += 1
                self._seconds[upstream,] += seconds
            for observe in self.observers:
                observe(upstream, outcome, seconds)

    def _run(self, deadline: float, upstream: str, call: Callable[[], _T]) -> _T:
        self._acquire(upstream)
        # Released when the call ends, not when its caller stops waiting.
        try:
            future = self._threads.submit(call)
        except RuntimeError:  # no thread can be started, or the process exits
            self._release(upstream)
            raise UpstreamUnavailable(UpstreamFailure.OVERLOADED) from None
        future.add_done_callback(lambda _: self._release(upstream))
        try:
            return future.result(deadline)
        except TimeoutError:
            raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None

    def _acquire(self, upstream: str) -> None:
        with self._lock:
            if self._taken.total() >= MAX_CONCURRENT_CALLS or self._taken[upstream] >= MAX_CALLS_PER_UPSTREAM:
                raise UpstreamUnavailable(UpstreamFailure.OVERLOADED)
            self._taken[upstream] += 1

    def _release(self, upstream: str) -> None:
        with self._lock:
            self._taken[upstream] -= 1
            if not self._taken[upstream]:
                del self._taken[upstream]


foreground = Bulkhead()  # for calls while a request is handled: each blocks a thread for strategies
background = Bulkhead()  # for fetching documents: a request that waits for one holds a slot of `foreground`

run = foreground.run
