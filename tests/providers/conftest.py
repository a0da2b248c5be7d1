"""Fixtures shared by tests of several providers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from providers.upstream import documents
from tests.support.clock import StoppedClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    own = StoppedClock()
    monkeypatch.setattr(documents, "time", own)
    return own


@pytest.fixture
def frozen_time() -> Iterator[None]:
    """Stop the time of day, to test exact limits of tokens."""
    with time_machine.travel(datetime.now(UTC), tick=False):
        yield
