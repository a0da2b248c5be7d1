"""The access log: one line for each request."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field

from django.http import HttpRequest

log = logging.getLogger("ags.request")


def get_log_entry(request: HttpRequest) -> AccessLogEntry:
    entry: AccessLogEntry = request.log_entry  # type: ignore[attr-defined]
    return entry


@dataclass(slots=True)
class AccessLogEntry:
    """Contains no parameter, token or account. `exception`: one that Django caught, for the response."""

    correlation_id: str
    method: str | None
    route: str | None = None
    tenant: str | None = None
    service: str | None = None
    reason: str | None = None
    exception: BaseException | None = None
    started: float | None = field(default_factory=time.perf_counter)

    def write(self, status: int | None) -> None:
        """`status` is None if the client disconnected before the response."""
        if not log.isEnabledFor(logging.INFO):
            return
        duration = self.started and time.perf_counter() - self.started
        line = {
            "name": log.name,
            "levelno": logging.INFO,
            "levelname": "INFO",
            "msg": "request",
            "correlation_id": self.correlation_id,
            "method": self.method,
            "route": self.route,
            "tenant": self.tenant,
            "service": self.service,
            "outcome": _outcome(status),
            "reason": self.reason,
            "status": status,
            "duration_ms": duration and round(duration * 1000, 2),
        }
        log.handle(logging.makeLogRecord(line))


def _outcome(status: int | None) -> str:
    if status is None:
        return "abandoned"
    return "answered" if status < 400 else "refused" if status < 500 else "failed"
