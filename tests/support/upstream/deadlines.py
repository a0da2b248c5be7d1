"""Deadlines for requests to upstreams. No result depends on the speed of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable
from tests.support.waiting import PATIENCE

LONG: float = 2 * PATIENCE
"""Seconds that nothing takes: an upstream that blocks responds earlier."""

LONGEST: float = 10.0
"""The maximum that the settings of a service allow, in seconds."""

SHORT: float = 0.3
"""Seconds to wait for an upstream that does not respond. No other result is expected within them."""

_T = TypeVar("_T")


def deadline_for(expected: UpstreamFailure) -> float:
    """Return a deadline for detecting a failure: short only if the upstream does not respond."""
    return SHORT if expected is UpstreamFailure.TIMEOUT else LONG


def retry_with_longer_deadlines(call: Callable[[float], _T]) -> _T:
    """Return the result of `call` with a deadline that is long enough for this machine.

    For results that take a fraction of the deadline, so that a long deadline would make the test slow.
    """
    for deadline in (0.5, 5.0):
        try:
            return call(deadline)
        except UpstreamUnavailable as unavailable:
            if unavailable.failure is not UpstreamFailure.TIMEOUT:
                raise
    return call(PATIENCE)
