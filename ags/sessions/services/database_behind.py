"""Logging that the database went back in time: a restore, or a failover that lost commits."""

from __future__ import annotations

import logging
import math
import threading
import time

log = logging.getLogger("ags.database")

PERIOD = 60
"""Seconds in which a process logs it once."""


class DatabaseBehind:
    """Every app that refreshed since the backup shows it again: one line in a period is enough."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at = -math.inf

    def report(self, tenant_id: str, correlation_id: str) -> None:
        """Log it, unless it was logged in this period."""
        with self._lock:
            now = time.monotonic()
            if now < self._logged_at + PERIOD:
                return
            self._logged_at = now
        log.error("database_behind", extra={"tenant": tenant_id, "correlation_id": correlation_id})


database_behind = DatabaseBehind()
