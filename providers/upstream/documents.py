"""Documents of upstreams, such as key sets: fetched in the background, kept, and used while they may be.

A request waits for a document only where there is none that may be used: at first, after nobody has asked for
`FRESH_FOR`, or for a key that has just been published.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

from django.dispatch import Signal

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream.bulkhead import background, foreground
from providers.upstream.http import host_and_port, request

FRESH_FOR = 300.0
"""Seconds after which a document is not used any more without asking whether there is a newer one."""

EARLY = 240.0
"""Seconds after which that is done already, in the background, by a document that is in use."""

KEPT_FOR = 24 * 3600.0
"""Seconds for which the last good copy is used while the upstream is away."""

GAP = 10.0
"""Seconds from one fetch to the next, whatever is asked for, and however often."""

BUSY_GAP = 1.0
"""Seconds to the next attempt where one found no room: nothing was asked of the upstream."""

LIMIT = 256 * 1024
"""Bytes that a document has at most."""

fetched = Signal()
"""Sent with `document` after each fetch, good or bad, in the thread that fetched."""

_T = TypeVar("_T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where a document comes from, and for which tenant: what one is told never reaches another."""

    tenant: str
    url: str
    deadline: float = 3.0
    ca_certificates: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Health:
    """How fetching goes. Moments are in seconds since the epoch; None: never."""

    good_at: float | None = None
    failed_at: float | None = None
    failure: UpstreamFailure | None = None
    detail: str = ""


class Document(Generic[_T]):
    """One document, as `parse` reads it. Shared by all threads."""

    def __init__(self, source: Source, parse: Callable[[bytes], _T]) -> None:
        self.source = source
        self.health = Health()
        self._parse = parse
        self._upstream = host_and_port(source.url)
        self._lock = threading.Lock()
        self._copy: _T | None = None
        self._good_at = self._begun_at = float("-inf")
        self._failed: UpstreamUnavailable | None = None
        self._fetch: Future[None] | None = None

    def current(self, wait: float | None = None) -> _T:
        """Return the document. Raises `UpstreamUnavailable`.

        Where it must be fetched first, that takes at most `wait` seconds, or the deadline of the source.
        """
        with self._lock:
            age = time.monotonic() - self._good_at
            fetch = self._fetch_if_due() if age >= EARLY else None
            # While the upstream is away, the last good copy costs nobody the wait for a vain attempt.
            if self._copy is not None and (age < FRESH_FOR or (self._failed and age < KEPT_FOR)):
                return self._copy
        outage = self._wait(fetch, wait)
        with self._lock:
            if self._copy is not None and time.monotonic() - self._good_at < KEPT_FOR:
                return self._copy
            told = self._failed or outage or UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        # A new one each time: one that is raised by many keeps the frames of all, and what is in them.
        raise UpstreamUnavailable(told.failure, told.detail)

    def refreshed(self, than: _T, wait: float | None = None) -> _T:
        """Return the document as it is now, for `than` lacks what was looked for.

        Fetches once, and not within `GAP` of the last time; where that brings nothing, `than` comes back.
        """
        with self._lock:
            fetch = self._fetch_if_due() if self._copy is than else None
        self._wait(fetch, wait)
        with self._lock:
            return than if self._copy is None else self._copy

    def prepare(self) -> None:
        """Begin to fetch it, if there is no copy yet, and wait for nothing."""
        with self._lock:
            if self._copy is None:
                self._fetch_if_due()

    def fetch_now(self) -> _T:
        """Fetch it, whatever is kept, and return it. Raises `UpstreamUnavailable`."""
        try:
            copy = self._load()
            self._keep(copy)
        except UpstreamUnavailable as outage:
            self._fail(outage)
            raise
        finally:
            self._tell()
        return copy

    def _fetch_if_due(self) -> Future[None] | None:
        """Return the fetch that is under way, having begun one if it is time. Holds the lock."""
        now = time.monotonic()
        if self._fetch is None and now - self._begun_at >= GAP:
            self._fetch, self._begun_at = Future(), now
            name = f"document {self._upstream}"
            thread = threading.Thread(target=self._run, args=[self._fetch], name=name, daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the machine has no thread left
                self._fetch, self._failed = None, UpstreamUnavailable(UpstreamFailure.OVERLOADED)
        return self._fetch

    def _wait(self, fetch: Future[None] | None, seconds: float | None) -> UpstreamUnavailable | None:
        """Wait for that fetch to end, and return what kept it from being waited for."""
        if fetch is None:
            return None
        try:
            with foreground.slot(self._upstream):
                fetch.result(self.source.deadline if seconds is None else seconds)
        except TimeoutError:
            return UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        except UpstreamUnavailable as busy:
            return busy
        return None

    def _run(self, fetch: Future[None]) -> None:
        try:
            self._keep(self._load())
        except UpstreamUnavailable as outage:
            self._fail(outage)
            if outage.failure is UpstreamFailure.OVERLOADED:
                self._begun_at += BUSY_GAP - GAP
        except Exception as error:  # noqa: BLE001 - whatever a document does to its parser, fetching goes on
            log.error("document cannot be parsed: %s", type(error).__name__)
            self._fail(UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID))
        with self._lock:
            self._fetch = None
        fetch.set_result(None)
        # Last, for nobody needs to wait for those who listen.
        self._tell()

    def _load(self) -> _T:
        source = self.source
        limits = {"deadline": source.deadline, "ca_certificates": source.ca_certificates}
        headers = {"Accept": "application/json"}
        answer = request("GET", source.url, limits, headers=headers, limit=LIMIT, bulkhead=background)
        if answer.status != 200:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID, f"it answers {answer.status}")
        return self._parse(answer.body)

    def _keep(self, copy: _T) -> None:
        with self._lock:
            self._copy, self._failed = copy, None
            self._good_at = time.monotonic()
            self.health = Health(time.time(), self.health.failed_at)

    def _fail(self, outage: UpstreamUnavailable) -> None:
        with self._lock:
            self._failed = UpstreamUnavailable(outage.failure, outage.detail)
            self.health = Health(self.health.good_at, time.time(), outage.failure, str(outage))

    def _tell(self) -> None:
        fetched.send_robust(sender=Document, document=self)


@lru_cache(maxsize=4096)
def document(source: Source, parse: Callable[[bytes], Any]) -> Document[Any]:
    """Return the document of that source: the same for the same source and the same (equal) `parse`.

    `parse` takes the bytes. It raises `UpstreamUnavailable(RESPONSE_INVALID)` if they are not valid.
    """
    return Document(source, parse)
