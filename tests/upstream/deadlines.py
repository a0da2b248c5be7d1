"""The deadlines that tests give to AGS. No result depends on the speed of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable
from tests.waiting import PATIENCE

LONG: float = 2 * PATIENCE
"""Seconds that nothing takes: before that, an upstream that blocks is released, or answers by itself."""

LONGEST: float = 10.0
"""The most seconds that the settings of a service allow."""

HASTY: float = 0.3
"""Seconds to wait for an upstream that does not answer. Nothing else is expected within them."""

_T = TypeVar("_T")


def hasty_if_slow(expected: UpstreamFailure) -> float:
    """Return the deadline with which that outage is found: a short one only where nobody answers."""
    return HASTY if expected is UpstreamFailure.TIMEOUT else LONG


def patiently(call: Callable[[float], _T]) -> _T:
    """Return what `call` returns with a deadline that is long enough for this machine.

    For results that come after a part of the deadline has passed: a long one would take as long.
    """
    for deadline in (0.5, 5.0):
        try:
            return call(deadline)
        except UpstreamUnavailable as unavailable:
            if unavailable.failure is not UpstreamFailure.TIMEOUT:
                raise
    return call(PATIENCE)
