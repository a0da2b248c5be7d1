"""Refresh tokens that are newer than the database, after it was restored from a backup."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device
from ags.sessions.services import database_behind
from ags.sessions.services.refresh import MAX_USED
from tests.support.clients import ClientApp
from tests.support.database import get_verbs
from tests.support.refreshes import concurrent_refresh, fill_history
from tests.support.responses import (
    ACCOUNT_SUSPENDED,
    CORRELATION_ID,
    DEVICE_DISABLED,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    full_response,
)
from tests.support.sign_ons import (
    age_sign_on,
    decode_claims,
    get_device,
    get_events,
    set_grace_period_of_a_minute,
    sign_refresh_claims,
    update_row,
)

# A database that has lost commits


@dataclass
class RestoredSignOn:
    """A sign-on with tokens of generations 0 to 5, whose row was restored to generation 0."""

    app: ClientApp
    tokens: list[str]
    row: dict[str, Any]

    def restore(self, **changes: Any) -> None:
        """Restore the row to its first state."""
        Device.unscoped.update(**(self.row | changes))

    def refresh(self, generation: int) -> Any:
        """Refresh with the token of that generation."""
        return self.app.refresh(self.tokens[generation])


@pytest.fixture
def restored(signed_on: ClientApp) -> RestoredSignOn:
    set_grace_period_of_a_minute()
    row = Device.unscoped.values().get()
    tokens = [signed_on.tokens["refresh_token"]]
    tokens += [signed_on.refresh().json()["refresh_token"] for _ in range(5)]
    restored = RestoredSignOn(signed_on, tokens, row)
    restored.restore()
    return restored


@pytest.mark.parametrize("generation", [1, 3, 5])
def test_a_token_newer_than_the_database_is_accepted_and_moves_it_forward(
    restored: RestoredSignOn, generation: int, lines: Callable[[], list[Any]], stale_snapshots: None
) -> None:
    with CaptureQueriesContext(connection) as captured:
        answer = restored.refresh(generation)
    assert (answer.status_code, get_verbs(captured)) == (200, ["SELECT", "UPDATE"])
    successor = answer.json()["refresh_token"]
    row = get_device()
    assert row.generation == generation + 1
    assert decode_claims(successor)["jti"] == f"{row.sign_on}.{generation + 1}"
    again = restored.refresh(generation)
    assert (again.status_code, again.json()["refresh_token"]) == (200, successor), (
        "a retry gets the same successor"
    )
    assert [line.getMessage() for line in lines()] == ["database_behind"]
    assert restored.app.refresh(successor).status_code == 200
    assert (get_device().generation, get_events()) == (generation + 2, [])


def test_a_database_that_is_behind_is_logged_at_most_once_a_minute(
    restored: RestoredSignOn, lines: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock: Any = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(database_behind, "time", clock)
    for clock.now, expected in [(1000.0, 1), (1001.0, 1), (1059.9, 1), (1060.0, 2), (1119.9, 2), (1120.0, 3)]:
        restored.restore()
        assert restored.app.refresh(restored.tokens[2], x_correlation_id=CORRELATION_ID).status_code == 200
        assert len(lines()) == expected
    (line, *_) = lines()
    assert (line.levelname, line.tenant, line.correlation_id) == ("ERROR", "nagra", CORRELATION_ID)


def test_another_client_with_a_still_newer_token_stays_signed_on(restored: RestoredSignOn) -> None:
    here = restored.refresh(2).json()["refresh_token"]
    there = restored.refresh(5).json()["refresh_token"]
    assert decode_claims(there)["jti"].endswith(".6")
    for token in (*restored.tokens, here):
        assert restored.app.refresh(token).json()["refresh_token"] == there, "within the grace period"
    assert restored.app.refresh(there).status_code == 200
    assert get_events() == []


@pytest.mark.parametrize("generation", range(6))
def test_reuse_is_detected_after_a_restore(restored: RestoredSignOn, generation: int) -> None:
    restored.refresh(2)
    restored.refresh(5)
    age_sign_on(61)
    assert (
        full_response(restored.app.refresh(restored.tokens[generation], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    assert get_device().end_reason == "refresh_token_reused"
    assert get_events() == [("refresh_token_reused", "account-1", 1)]


def test_a_restore_does_not_extend_the_grace_period(signed_on: ClientApp) -> None:
    first = signed_on.tokens["refresh_token"]
    signed_on.refresh()
    age_sign_on(11)
    row = Device.unscoped.values().get()
    for _ in range(2):
        signed_on.refresh()
    Device.unscoped.update(**row)
    assert signed_on.refresh().status_code == 200
    assert full_response(signed_on.refresh(first, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert get_events() == [("refresh_token_reused", "account-1", 1)]


def test_a_newer_token_is_valid_until_its_own_expiration(restored: RestoredSignOn) -> None:
    payload = decode_claims(restored.tokens[5])
    restored.restore(refresh_expires_at=datetime.now(UTC) - timedelta(hours=1))
    past = sign_refresh_claims(payload | {"exp": int(time.time()) - 1})
    assert full_response(restored.app.refresh(past, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert (
        full_response(restored.app.refresh(restored.tokens[0], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    assert get_device().generation == 0
    body = restored.refresh(5).json()
    assert 172_000 < body["refresh_expires_in"] <= 172_800
    assert get_events() == []


def ended(restored: RestoredSignOn) -> None:
    restored.restore(ended_at=datetime.now(UTC), end_reason="revoked")


def expired(restored: RestoredSignOn) -> None:
    restored.restore(fixed_expires_at=datetime.now(UTC) - timedelta(seconds=1))


def replaced(restored: RestoredSignOn) -> None:
    restored.restore(sign_on="0" * 32)


@pytest.mark.parametrize(
    ("invalidate", "expected"),
    [
        (ended, NOT_AUTHENTICATED),
        (expired, NOT_AUTHENTICATED),
        (replaced, NOT_AUTHENTICATED),
        (lambda restored: restored.restore(status="deleted"), DEVICE_UNKNOWN),
        (lambda restored: restored.restore(status="disabled"), DEVICE_DISABLED),
        (lambda restored: update_row(Account, status="suspended"), ACCOUNT_SUSPENDED),
        (lambda restored: update_row(Account, revoked_before=datetime.now(UTC)), NOT_AUTHENTICATED),
        (lambda restored: Device.unscoped.all().delete(), NOT_AUTHENTICATED),
    ],
    ids=["ended", "expired", "replaced", "deleted", "disabled", "suspended", "revoked", "gone"],
)
def test_a_newer_token_of_an_invalid_sign_on_is_rejected_and_changes_nothing(
    restored: RestoredSignOn,
    invalidate: Callable[[RestoredSignOn], None],
    expected: Any,
    lines: Callable[[], list[Any]],
) -> None:
    invalidate(restored)
    rows = list(Device.unscoped.values())
    assert (
        full_response(restored.app.refresh(restored.tokens[5], x_correlation_id=CORRELATION_ID)) == expected
    )
    assert list(Device.unscoped.values()) == rows
    assert (get_events(), lines()) == ([], [])


def test_a_newer_token_that_would_overflow_the_history_is_a_429(
    signed_on: ClientApp,
) -> None:
    fill_history(signed_on)
    row = get_device()
    Device.unscoped.update(generation=MAX_USED - 1, used=row.used[:-1])
    answer = signed_on.refresh()
    assert (answer.status_code, answer.json()["reason"]) == (429, "too_many_refreshes")
    age_sign_on(int(answer.headers["Retry-After"]))
    assert signed_on.refresh().status_code == 200
    assert get_events() == []


@pytest.mark.parametrize(("slower", "faster"), [(2, 5), (5, 2), (5, 4), (0, 5), (5, 0)])
def test_concurrent_newer_tokens_are_both_accepted(
    restored: RestoredSignOn, slower: int, faster: int
) -> None:
    with concurrent_refresh(lambda: restored.refresh(faster)) as first:
        second = restored.refresh(slower)
    assert [first[0].status_code, second.status_code] == [200, 200]
    assert get_device().generation == 6
    assert restored.app.refresh(second.json()["refresh_token"]).status_code == 200
    assert get_events() == []
