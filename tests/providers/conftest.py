"""Fixtures shared by tests of several providers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine

from providers.upstream import documents
from tests.support.clock import StoppedClock
from tests.support.confused_tokens import KEY_SET
from tests.support.ldap import ENTRIES
from tests.support.oidc_id_token import WELL_KNOWN, discovery
from tests.support.upstream.https import HTTPSServer, as_json
from tests.support.upstream.requests import wait_for_free_slots
from tests.support.upstream.slapd import Slapd, slapd


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


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


@pytest.fixture(scope="module")
def directory() -> Iterator[Slapd]:
    with slapd(ENTRIES) as server:
        yield server


@pytest.fixture
def oidc_server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies[WELL_KNOWN] = discovery(running)
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


# Keys from a URL.


@pytest.fixture
def jwks_server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        running.replies["/keys"] = as_json(KEY_SET)
        yield running


@pytest.fixture
def free_slots() -> None:
    wait_for_free_slots()
