"""Reuse of refresh tokens: within the grace period, after it, and concurrently."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Device, SecurityEvent
from ags.sessions.services.refresh import MAX_USED
from tenants.models import Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.database import get_verbs
from tests.support.refreshes import fill_history
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response
from tests.support.sign_ons import (
    age_sign_on,
    decode_claims,
    get_device,
    get_events,
    set_grace_period_of_a_minute,
    sign_refresh_claims,
)

# Reuse


def test_within_the_grace_period_a_used_token_gets_the_same_successor(signed_on: ClientApp) -> None:
    first = signed_on.tokens["refresh_token"]
    second = signed_on.refresh(first).json()
    for _ in range(3):
        again = signed_on.refresh(first)
        assert again.status_code == 200
        assert again.json()["refresh_token"] == second["refresh_token"], "identical"
        assert again.json()["access_token"] != second["access_token"]
    assert get_device().generation == 1
    third = signed_on.refresh(second["refresh_token"]).json()
    for used in (first, second["refresh_token"]):
        assert signed_on.refresh(used).json()["refresh_token"] == third["refresh_token"]
    assert signed_on.refresh(third["refresh_token"]).status_code == 200
    assert get_events() == []


@pytest.mark.parametrize("grace", [10, 60, 0])
def test_after_the_grace_period_reuse_ends_the_sign_on(signed_on: ClientApp, grace: int) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_grace = grace
    tenant.save()
    snapshot.invalidate("nagra")
    first = signed_on.tokens
    second = signed_on.refresh().json()
    if grace:
        age_sign_on(grace // 2)
        assert signed_on.refresh(first["refresh_token"]).status_code == 200
        age_sign_on(grace // 2 + 1)
    assert (
        full_response(signed_on.refresh(first["refresh_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    row = get_device()
    assert (row.ended_at is not None, row.end_reason) == (True, "refresh_token_reused")
    for used in (first, second, second):
        assert (
            full_response(signed_on.refresh(used["refresh_token"], x_correlation_id=CORRELATION_ID))
            == NOT_AUTHENTICATED
        )
        assert signed_on.sign_out(used["access_token"]).status_code == 401
    event = SecurityEvent.objects.for_tenant("nagra").get()
    assert (event.kind, event.subject, event.account_id, event.times, event.correlation_id) == (
        "refresh_token_reused",
        row.sign_on,
        "account-1",
        1,
        CORRELATION_ID,
    )
    assert signed_on.sign_on(clientId=second["client_id"]).status_code == 201, "the device can sign on again"
    assert signed_on.refresh().status_code == 200


def test_reuse_of_an_expired_token_ends_the_sign_on(signed_on: ClientApp) -> None:
    """A thief uses the token while its client is offline."""
    stolen = decode_claims(signed_on.tokens["refresh_token"])
    thief = signed_on.refresh().json()["refresh_token"]
    past = sign_refresh_claims(stolen | {"exp": int(time.time()) - 1})
    assert full_response(signed_on.refresh(past, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert get_events() == [], "within the grace period it is only expired"
    age_sign_on(11)
    assert full_response(signed_on.refresh(past, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert get_device().end_reason == "refresh_token_reused"
    assert get_events() == [("refresh_token_reused", "account-1", 1)]
    assert signed_on.refresh(thief).status_code == 401


def test_a_refresh_that_would_overflow_the_history_is_a_429_and_changes_nothing(
    signed_on: ClientApp, stale_snapshots: None
) -> None:
    used = fill_history(signed_on)
    before = Device.unscoped.values().get()
    grace_end = before["used"][0][1] + 60
    longest_wait = grace_end - time.time()
    with CaptureQueriesContext(connection) as captured:
        answer = signed_on.refresh(x_correlation_id=CORRELATION_ID)
    assert (answer.status_code, get_verbs(captured)) == (429, ["SELECT"])
    assert answer.json() == {
        "code": 42901,
        "reason": "too_many_refreshes",
        "message": "Too many refreshes in a short time. Retry-After contains the seconds to wait.",
        "correlationId": CORRELATION_ID,
    }
    wait = int(answer.headers["Retry-After"])
    assert grace_end - time.time() <= wait <= longest_wait + 1.1, (
        "until the grace period of the oldest token ends"
    )
    assert Device.unscoped.values().get() == before
    last = signed_on.tokens["refresh_token"]
    for token in used:
        assert signed_on.refresh(token).json()["refresh_token"] == last, "a retry returns the same successor"
    age_sign_on(wait)
    assert signed_on.refresh().status_code == 200
    assert get_events() == []


@pytest.mark.parametrize("reused", [0, 1, MAX_USED - 1])
@pytest.mark.parametrize("rejected", [False, True])
def test_reuse_of_any_token_of_the_history_ends_the_sign_on(
    signed_on: ClientApp, reused: int, rejected: bool
) -> None:
    used = fill_history(signed_on)
    if rejected:
        assert signed_on.refresh().status_code == 429
    age_sign_on(61)
    assert (
        full_response(signed_on.refresh(used[reused], x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    )
    assert get_device().end_reason == "refresh_token_reused"
    assert get_events() == [("refresh_token_reused", "account-1", 1)]
    assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED


def test_a_used_token_leaves_the_history_after_its_grace_period(signed_on: ClientApp) -> None:
    for _ in range(3):
        signed_on.refresh()
    assert [generation for generation, _ in get_device().used] == [0, 1, 2]
    age_sign_on(11)
    signed_on.refresh()
    assert [generation for generation, _ in get_device().used] == [3]


def test_each_used_token_has_its_own_grace_period(
    signed_on: ClientApp, lines: Callable[[], list[Any]]
) -> None:
    set_grace_period_of_a_minute()
    first = signed_on.tokens["refresh_token"]
    for _ in range(2):
        signed_on.refresh()
        age_sign_on(31)
    assert [generation for generation, _ in get_device().used] == [0, 1]
    assert full_response(signed_on.refresh(first, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert get_events() == [("refresh_token_reused", "account-1", 1)]
    assert lines() == [], "the database is not behind"
