"""The time of AGS: that of its database, so that all processes and the rows of the database agree.

Processes read the time of the database with statements that they execute anyway. Between two measurements, it
advances with `time.monotonic()`, which no change of the clock of the machine affects.
"""

import time
from dataclasses import dataclass

from django.dispatch import Signal

MAX_DRIFT = 0.001
"""Seconds per second by which an older measurement is regarded as less exact."""

measured = Signal()
"""Sent after each measurement, in the thread that measured."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """`offset`: the time of the database minus `time.monotonic()`, which was `measured_at`.

    It is wrong by at most `uncertainty` seconds.
    """

    offset: float
    uncertainty: float
    measured_at: float


class DatabaseClock:
    """The clock of the database, as this process has measured it. Shared by all threads."""

    def __init__(self) -> None:
        self._measurement: Measurement | None = None

    def now(self) -> float:
        """Return seconds since the epoch; before the first measurement, by the clock of the machine."""
        known = self._measurement
        return time.time() if known is None else time.monotonic() + known.offset

    @property
    def difference(self) -> float | None:
        """Seconds: the time of the database minus that of the machine; None before the first measurement."""
        known = self._measurement
        return None if known is None else time.monotonic() + known.offset - time.time()

    @property
    def uncertainty(self) -> float:
        """Seconds by which `difference` may be wrong; 0 before the first measurement."""
        known = self._measurement
        return 0.0 if known is None else known.uncertainty

    def add(self, database_time: float, sent_at: float) -> None:
        """Take a time that the database has just returned.

        `sent_at`: `time.monotonic()` before the statement. The database read its clock between then and now.
        """
        received_at = time.monotonic()
        uncertainty = (received_at - sent_at) / 2
        new = Measurement(database_time - (sent_at + uncertainty), uncertainty, received_at)
        known = self._measurement
        if known is None or _is_better(new, known):
            self._measurement = new
        measured.send(sender=DatabaseClock)


def _is_better(new: Measurement, known: Measurement) -> bool:
    """Return whether `new` is at least as exact, or shows that the clock of the database was set."""
    uncertainty = known.uncertainty + MAX_DRIFT * (new.measured_at - known.measured_at)
    return new.uncertainty <= uncertainty or abs(new.offset - known.offset) > new.uncertainty + uncertainty


database_clock = DatabaseClock()
"""The instance of this process."""


current_time = database_clock.now
"""Return the time by which AGS issues and verifies tokens, in seconds since the epoch."""
