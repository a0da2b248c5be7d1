"""The access log: one line for each request."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar

from django.http import HttpRequest

from ags.operations.metrics import Request, count_request

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Requested every few seconds, so logged at DEBUG unless they fail. Their clients may use any Host header."""

_LEVELS: dict[int | None, int] = {
    **{status: logging.ERROR for status in HTTPStatus if status >= 500},
    HTTPStatus.SERVICE_UNAVAILABLE: logging.WARNING,
    # Any client can cause it, with an unknown Transfer-Encoding: that must raise no alarm.
    HTTPStatus.NOT_IMPLEMENTED: logging.INFO,
}
_LEVEL_NAMES = {level: name for name, level in logging.getLevelNamesMapping().items()}

log = logging.getLogger("ags.request")


def get_log_entry(request: HttpRequest) -> AccessLogEntry:
    entry: AccessLogEntry = request.log_entry  # type: ignore[attr-defined]
    return entry


@dataclass(slots=True)
class AccessLogEntry:
    """What is logged and stored about a request. The line of the log contains no parameter, token or account.

    `kid`, `key_id` and `token_age` are those of `LogContext`. `account_id`, `client_id` (that of the
    device) and `facts` (those of `ApiError`) are for the audit trail only. `exception`: one that Django
    caught, for the response.
    """

    observers: ClassVar[list[Callable[[AccessLogEntry, int | None, str], None]]] = []
    """Called at the end of a request, in its context, with the status and the outcome."""

    correlation_id: str
    method: str | None
    client_address: str | None
    route: str | None = None
    tenant: str | None = None
    service: str | None = None
    kid: str | None = None
    key_id: int | None = None
    token_age: float | None = None
    account_id: str | None = field(default=None, repr=False)
    client_id: str | None = field(default=None, repr=False)
    facts: dict[str, Any] = field(default_factory=dict, repr=False)
    reason: str | None = None
    exception: BaseException | None = None
    started: float | None = field(default_factory=time.perf_counter)

    def write(self, status: int | None) -> None:
        """`status` is None if the client disconnected before the response."""
        duration = None if self.started is None else time.perf_counter() - self.started
        outcome = _outcome(status)
        kid = None if self.key_id is None else self.kid
        request = Request(self.route, self.tenant, self.service, outcome, self.reason, kid)
        count_request(request, duration)
        for observe in self.observers:
            observe(self, status, outcome)
        level = _LEVELS.get(status, logging.DEBUG if self.route in PROBE_PATHS else logging.INFO)
        if not log.isEnabledFor(level):
            return
        line = {
            "name": log.name,
            "levelno": level,
            "levelname": _LEVEL_NAMES[level],
            "msg": "request",
            "correlation_id": self.correlation_id,
            "client_address": self.client_address,
            "method": self.method,
            "route": self.route,
            "tenant": self.tenant,
            "service": self.service,
            "kid": self.kid,
            "outcome": outcome,
            "reason": self.reason,
            "status": status,
            "duration_ms": duration and round(duration * 1000, 2),
        }
        _queue.submit(logging.makeLogRecord(line))


class _Queue(threading.local):
    """Writes the lines of one iteration of the event loop together: only the first finds cold CPU caches."""

    def __init__(self) -> None:
        self._records: list[logging.LogRecord] = []

    def submit(self, record: logging.LogRecord) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a staff page, in a thread
            log.handle(record)
            return
        if not self._records:
            loop.call_soon(self._write)
        self._records.append(record)

    def _write(self) -> None:
        records, self._records = self._records, []
        for record in records:
            log.handle(record)


_queue = _Queue()


def _outcome(status: int | None) -> str:
    if status is None:
        return "abandoned"
    return "answered" if status < 400 else "refused" if status < 500 else "failed"
