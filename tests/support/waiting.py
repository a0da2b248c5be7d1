"""Bounded waits: a test fails if what it waits for does not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE: float = 60.0
"""Seconds after which a wait fails. Only a defect reaches them, not a slow machine."""


def wait_until(happens: Callable[[], object], otherwise: str, seconds: float = PATIENCE) -> None:
    """Call `happens` until it returns a true value; fail with `otherwise` after that many seconds."""
    limit = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < limit, otherwise
        time.sleep(0.01)
