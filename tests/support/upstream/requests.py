"""Requests to upstreams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import bulkhead
from tests.support.upstream.authority import authority
from tests.support.upstream.deadlines import LONG, SHORT
from tests.support.waiting import wait_until

UNREACHABLE = UpstreamFailure.UNREACHABLE

SETTINGS: dict[str, Any] = {"deadline": LONG, "ca_certificates": authority().certificate}
HASTY_SETTINGS = {**SETTINGS, "deadline": SHORT}


def wait_for_free_slots() -> None:
    """Wait for calls that continue after their deadline."""
    wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")


def get_failure(call: Callable[[], Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamUnavailable) as raised:
        call()
    return raised.value.failure
