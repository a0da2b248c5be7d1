"""Documents of upstreams, such as JWK Sets: fetched in the background and cached.

A request waits for a document only if the cache has no usable copy: the first time, if no request has used
the document for `FRESH_FOR`, or to find a key that has just been published.
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
"""Seconds after which a copy must be fetched again before it is used."""

EARLY = 240.0
"""Seconds after which a document in use is fetched again in the background."""

KEPT_FOR = 24 * 3600.0
"""Seconds for which the last copy is used while the upstream is unavailable."""

GAP = 10.0
"""Minimum seconds between two fetches."""

BUSY_GAP = 1.0
"""Minimum seconds to the next fetch if the bulkhead was full: no request was sent."""

LIMIT = 256 * 1024
"""Maximum bytes of a document."""

fetched = Signal()
"""Sent with `document` after each fetch, successful or not, in the thread that fetched."""

_T = TypeVar("_T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """The URL of a document, and the tenant that uses it: tenants never share a copy."""

    tenant: str
    url: str
    deadline: float = 3.0
    ca_certificates: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Health:
    """The outcome of fetching. Times are in seconds since the epoch; None: never."""

    good_at: float | None = None
    failed_at: float | None = None
    failure: UpstreamFailure | None = None
    detail: str = ""


class Document(Generic[_T]):
    """A document, parsed by `parse`. Shared by all threads."""

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

        If it must be fetched first, wait for at most `wait` seconds, by default the deadline of the source.
        """
        with self._lock:
            age = time.monotonic() - self._good_at
            fetch = self._fetch_if_due() if age >= EARLY else None
            # While the upstream is unavailable, no request waits for another failed fetch.
            if self._copy is not None and (age < FRESH_FOR or (self._failed and age < KEPT_FOR)):
                return self._copy
        outage = self._wait(fetch, wait)
        with self._lock:
            if self._copy is not None and time.monotonic() - self._good_at < KEPT_FOR:
                return self._copy
            told = self._failed or outage or UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        # A new exception each time: a shared one would keep the frames of all requests.
        raise UpstreamUnavailable(told.failure, told.detail)

    def refreshed(self, than: _T, wait: float | None = None) -> _T:
        """Return a newer document than `than`, which lacks a key.

        Fetches at most once, and not within `GAP` of the last fetch. Returns `than` if there is none.
        """
        with self._lock:
            fetch = self._fetch_if_due() if self._copy is than else None
        self._wait(fetch, wait)
        with self._lock:
            return than if self._copy is None else self._copy

    def prepare(self) -> None:
        """Start to fetch the document if there is no copy. Returns at once."""
        with self._lock:
            if self._copy is None:
                self._fetch_if_due()

    def fetch_now(self) -> _T:
        """Fetch and return the document, even if there is a copy. Raises `UpstreamUnavailable`."""
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
        """Return the fetch in progress; start one if it is due. Requires the lock."""
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
        """Wait for the end of a fetch. Return why it could not be awaited."""
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
        # Last: requests must not wait for the receivers of the signal.
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
    """Return the document of a source: the same object for equal sources and equal `parse`.

    `parse` takes the bytes. It raises `UpstreamUnavailable(RESPONSE_INVALID)` if they are not valid.
    """
    return Document(source, parse)
