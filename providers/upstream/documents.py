"""Documents of upstreams, such as JWK Sets: fetched in the background and cached."""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, TypeVar

from django.dispatch import Signal

from providers.contract import UpstreamFailure, UpstreamUnavailable, current_time
from providers.upstream.bulkhead import background, foreground
from providers.upstream.http import host_and_port, request
from providers.upstream.response import invalid_response

MAX_AGE = 300.0  # seconds; an older copy must be fetched again before it is used
REFRESH_AGE = 240.0  # seconds; using an older copy starts to fetch the document in the background
MAX_STALE_AGE = 24 * 3600.0  # seconds; the same while the upstream is unavailable (RFC 5861, section 4)
MIN_FETCH_INTERVAL = 10.0  # seconds between the starts of two fetches
OVERLOAD_RETRY_INTERVAL = 1.0  # seconds after a fetch that sent no request, because the bulkhead was full
LIMIT = 256 * 1024  # maximum bytes of a document
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
    """The last successful and the last failed fetch. Times are in seconds since the epoch; None: never."""

    good_at: float | None = None
    failed_at: float | None = None
    failure: UpstreamFailure | None = None
    detail: str = ""


class Document(Generic[_T]):
    """A document of an upstream, such as a key set. AGS fetches it in the background and keeps it.

    A request waits for it only if there is no usable copy, or to find a key that has just been published.
    Shared by all threads.
    """

    def __init__(self, source: Source, parse: Callable[[bytes], _T]) -> None:
        self.source = source
        self.health = Health()
        self._parse = parse
        self._upstream = host_and_port(source.url)
        self._lock = threading.Lock()
        self._copy: _T | None = None
        self._good_at = self._fetch_started_at = float("-inf")
        self._error: UpstreamUnavailable | None = None
        self._fetch: Future[None] | None = None

    def current(self, wait: float | None = None) -> _T:
        """Return the document. Raises `UpstreamUnavailable`.

        If it must be fetched first, waits for at most `wait` seconds, by default the deadline of the source.
        """
        with self._lock:
            age = time.monotonic() - self._good_at
            fetch = self._fetch_if_due() if age >= REFRESH_AGE else None
            # While the upstream is unavailable, no request waits for another failed fetch.
            if self._copy is not None and (age < MAX_AGE or (self._error and age < MAX_STALE_AGE)):
                return self._copy
        wait_error = self._wait(fetch, wait)
        with self._lock:
            if self._copy is not None and time.monotonic() - self._good_at < MAX_STALE_AGE:
                return self._copy
            error = self._error or wait_error or UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        # A new exception each time: the traceback of a shared one would keep the frames of all requests.
        raise UpstreamUnavailable(error.failure, error.detail)

    def refresh(self, outdated: _T, wait: float | None = None) -> _T:
        """Return a newer copy than `outdated`, for example because that lacks a key.

        Fetches at most once, and not within `MIN_FETCH_INTERVAL` of the last fetch. Returns `outdated` if
        there is no newer copy.
        """
        with self._lock:
            fetch = self._fetch_if_due() if self._copy is outdated else None
        self._wait(fetch, wait)
        with self._lock:
            return outdated if self._copy is None else self._copy

    def prepare(self) -> None:
        """Start to fetch the document if there is no copy. Returns immediately."""
        with self._lock:
            if self._copy is None:
                self._fetch_if_due()

    def fetch_now(self) -> _T:
        """Fetch and return the document, even if there is a copy. Raises `UpstreamUnavailable`."""
        try:
            return self._load()
        finally:
            fetched.send_robust(sender=Document, document=self)

    def _fetch_if_due(self) -> Future[None] | None:
        """Return the fetch in progress; start one if it is due. Requires the lock."""
        now = time.monotonic()
        if self._fetch is None and now - self._fetch_started_at >= MIN_FETCH_INTERVAL:
            self._fetch, self._fetch_started_at = Future(), now
            name = f"document {self._upstream}"
            # With its context, so that the request that needs the document is known.
            thread = threading.Thread(
                target=copy_context().run, args=[self._run, self._fetch], name=name, daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # no thread can be started
                self._fetch, self._error = None, UpstreamUnavailable(UpstreamFailure.OVERLOADED)
        return self._fetch

    def _wait(self, fetch: Future[None] | None, seconds: float | None) -> UpstreamUnavailable | None:
        """Wait for a fetch to end. Return an error if this takes too long, or if no slot is free."""
        if fetch is None:
            return None
        try:
            with foreground.slot(self._upstream):
                fetch.result(self.source.deadline if seconds is None else seconds)
        except TimeoutError:
            return UpstreamUnavailable(UpstreamFailure.TIMEOUT)
        except UpstreamUnavailable as error:
            return error
        return None

    def _run(self, fetch: Future[None]) -> None:
        try:
            self._load()
        except UpstreamUnavailable as error:
            if error.failure is UpstreamFailure.OVERLOADED:
                self._fetch_started_at += OVERLOAD_RETRY_INTERVAL - MIN_FETCH_INTERVAL
        except Exception as error:  # noqa: BLE001 - a bug in a parser must not stop later fetches
            log.error("document cannot be parsed: %s", type(error).__name__)
            self._store_failure(UpstreamUnavailable(UpstreamFailure.RESPONSE_INVALID))
        with self._lock:
            self._fetch = None
        fetch.set_result(None)
        # After set_result: requests must not wait for the receivers of the signal.
        fetched.send_robust(sender=Document, document=self)

    def _load(self) -> _T:
        source = self.source
        limits = {"deadline": source.deadline, "ca_certificates": source.ca_certificates}
        headers = {"Accept": "application/json"}
        try:
            response = request("GET", source.url, limits, headers=headers, limit=LIMIT, bulkhead=background)
            if response.status != 200:
                raise invalid_response(f"it responds with {response.status}")
            copy = self._parse(response.body)
        except UpstreamUnavailable as error:
            self._store_failure(error)
            raise
        with self._lock:
            self._copy, self._error = copy, None
            self._good_at = time.monotonic()
            self.health = Health(current_time(), self.health.failed_at)
        return copy

    def _store_failure(self, error: UpstreamUnavailable) -> None:
        with self._lock:
            self._error = UpstreamUnavailable(error.failure, error.detail)
            self.health = Health(self.health.good_at, current_time(), error.failure, str(error))


@lru_cache(maxsize=4096)
def document(source: Source, parse: Callable[[bytes], Any]) -> Document[Any]:
    """Return the document of a source: the same object for equal sources and equal `parse`.

    `parse` receives the bytes. It raises `UpstreamUnavailable(RESPONSE_INVALID)` if they are not valid.
    """
    return Document(source, parse)
