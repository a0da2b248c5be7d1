"""The clock of the database, and how much that of this machine differs from it."""

import logging
import time
from typing import Any

from django.conf import settings
from django.db import connection

from providers.contract.clock import database_clock
from tenants.times import get_database_time

__all__ = [
    "TIME_EXPRESSION",
    "clock_log",
    "describe_difference",
    "get_clock_difference",
    "get_database_time",
    "is_clock_suspect",
    "is_clock_wrong",
    "measure_clock",
]

TIME_EXPRESSION = "extract(epoch FROM clock_timestamp())::double precision"
"""For PostgreSQL: its time in seconds since the epoch."""

UNCHECKED_LIMIT = 5.0
"""Seconds of difference that are logged if AGS_CLOCK_TOLERANCE is 0."""

WARNING_INTERVAL = 60.0
"""Seconds between two warnings."""

log = logging.getLogger("ags.clock")


def measure_clock() -> None:
    """Measure the difference with Django's connection of the thread. Raises Django's database errors."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:  # connects, so that the measurement does not include it
        sent_at = time.monotonic()
        cursor.execute(f"SELECT {TIME_EXPRESSION}")
        (database_time,) = cursor.fetchone()
    database_clock.add(database_time, sent_at)


def get_clock_difference() -> float | None:
    """Return the time of the database minus that of this machine, in seconds; None if it is not measured.

    SQLite uses the clock of the machine: 0.
    """
    return 0.0 if connection.vendor == "sqlite" else database_clock.difference


def is_clock_wrong() -> bool:
    """Return whether the clock certainly differs by more than AGS_CLOCK_TOLERANCE."""
    tolerance = settings.AGS_CLOCK_TOLERANCE
    return tolerance > 0 and _differs_by_more_than(tolerance)


def is_clock_suspect() -> bool:
    """Return whether it differs by more than half of AGS_CLOCK_TOLERANCE."""
    return _differs_by_more_than(settings.AGS_CLOCK_TOLERANCE / 2 or UNCHECKED_LIMIT)


def describe_difference() -> dict[str, Any]:
    """Return `seconds`, and whether the clock of this machine is `ahead` or `behind`, for people."""
    difference = get_clock_difference() or 0.0
    return {"seconds": round(abs(difference), 1), "clock": "behind" if difference > 0 else "ahead"}


def _differs_by_more_than(seconds: float) -> bool:
    difference = get_clock_difference()
    return difference is not None and abs(difference) - database_clock.uncertainty > seconds


class ClockLog:
    """Logs when the clock of this machine begins and ceases to differ."""

    def __init__(self) -> None:
        self._is_suspect = False
        self._warned_at = float("-inf")

    def update(self, **_: Any) -> None:
        """Receive the signal `measured`."""
        if is_clock_suspect():
            now = time.monotonic()
            if now - self._warned_at >= WARNING_INTERVAL:
                self._is_suspect, self._warned_at = True, now
                log.warning("the clock differs from that of the database", extra=describe_difference())
        elif self._is_suspect:
            self._is_suspect = False
            log.warning("the clock agrees with that of the database again", extra=describe_difference())


clock_log = ClockLog()
"""The instance of this process."""
