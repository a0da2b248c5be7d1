"""The log message for a database that has lost commits, by a restore or a failover."""

import logging
import math
import threading
import time

log = logging.getLogger("ags.database")

LOG_INTERVAL = 60
"""Seconds between two messages of a process."""


class DatabaseBehindReporter:
    """Limits the rate of the message: every client that refreshed since the backup would cause one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at = -math.inf

    def report(self, tenant_id: str, correlation_id: str) -> None:
        with self._lock:
            now = time.monotonic()
            if now < self._logged_at + LOG_INTERVAL:
                return
            self._logged_at = now
        log.error("database_behind", extra={"tenant": tenant_id, "correlation_id": correlation_id})


reporter = DatabaseBehindReporter()
