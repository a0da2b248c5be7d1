"""Bounded waits: a test that waits for something fails when it does not happen."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE: float = 60.0
"""Seconds after which a wait fails. No slow machine reaches them: only what is broken does."""


def wait_until(happens: Callable[[], bool], otherwise: str, seconds: float = PATIENCE) -> None:
    """Call `happens` until it returns true; fail with the message `otherwise` after that many seconds."""
    limit = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < limit, otherwise
        time.sleep(0.01)
