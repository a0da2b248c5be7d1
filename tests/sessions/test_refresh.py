"""Refreshing: rotation of tokens, the grace period, detection of reuse, and restored databases."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device, SecurityEvent
from ags.sessions.services import database_behind
from ags.sessions.services.refresh import MAX_USED
from tenants import snapshot as tenants_snapshot
from tenants.models import KeyState, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_now, get_verbs
from tests.support.operators import create_platform
from tests.support.responses import (
    ACCOUNT_CANCELLED,
    ACCOUNT_SUSPENDED,
    BODY_TOO_LARGE,
    CORRELATION_ID,
    DEVICE_DISABLED,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    error_response,
    full_response,
    header_missing,
)
from tests.support.sign_ons import (
    REFRESH_PATH,
    age_sign_on,
    decode_claims,
    get_device,
    get_events,
    set_grace_period_of_a_minute,
    sign_refresh_claims,
    sign_with_tenant_key,
    update_row,
)


@pytest.fixture
def signed_on(app: ClientApp) -> ClientApp:
    """The app, with a sign-on."""
    assert app.sign_on().status_code == 201
    return app


# Rotation


def test_a_refresh_replaces_both_tokens_and_nothing_else(signed_on: ClientApp) -> None:
    before = signed_on.tokens
    answer = signed_on.refresh()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    after = answer.json()
    assert list(after) == list(before)
    for name in ("access_token", "refresh_token"):
        first, second = decode_claims(before[name]), decode_claims(after[name])
        assert before[name] != after[name]
        assert first.pop("jti") != second.pop("jti")
        for claim in ("exp", "iat"):
            assert second.pop(claim, 0) >= first.pop(claim, 0)
        assert first == second, "including fixed_exp"
    for name in ("token_type", "client_id", "accountId", "expires_in", "refresh_expires_in"):
        assert after[name] == before[name]
    assert all(type(after[name]) is int for name in after if name.endswith("_in"))
    assert get_device().generation == 1


def test_no_refresh_token_outlives_the_fixed_expiration(signed_on: ClientApp) -> None:
    age_sign_on(7_776_000 - 172_800 - 60)  # the refresh token is valid for another minute
    Device.unscoped.update(refresh_expires_at=F("fixed_expires_at"))
    fixed = int(get_device().fixed_expires_at.timestamp())
    tenant = Tenant.objects.get(pk="nagra")
    tenant.sign_on_ttl = 100_000_000
    tenant.save()
    snapshot.invalidate("nagra")
    age_sign_on(150_000)
    for _ in range(3):
        before = database_now().timestamp()
        body = signed_on.refresh().json()
        payload = decode_claims(body["refresh_token"])
        assert payload["fixed_exp"] == payload["exp"] == fixed - 150_000
        assert body["refresh_expires_in"] == body["fixed_refresh_expires_in"]
        # `exp` is rounded down, what is left to the nearest second.
        left = [payload["exp"] - now for now in (database_now().timestamp(), before)]
        assert left[0] - 1 <= body["refresh_expires_in"] < left[1] + 2
    age_sign_on(172_800 + 60 - 150_000)
    assert signed_on.refresh().status_code == 401


def test_the_lifetime_of_a_refresh_token_follows_the_current_settings(signed_on: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_token_ttl, tenant.access_token_ttl = 300, 60
    tenant.save()
    snapshot.invalidate("nagra")
    body = signed_on.refresh().json()
    assert (body["refresh_expires_in"], body["expires_in"]) == (300, 60)
    age_sign_on(301)
    assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED


def test_a_refresh_token_expires_at_its_exp(signed_on: ClientApp) -> None:
    payload = decode_claims(signed_on.tokens["refresh_token"])
    past = sign_refresh_claims(payload | {"exp": int(time.time()) - 1})
    assert full_response(signed_on.refresh(past, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert signed_on.refresh(sign_refresh_claims(payload)).status_code == 200, "only exp was invalid"
    assert get_events() == []


def test_a_refresh_token_is_valid_under_every_encryption_key(signed_on: ClientApp, settings: Any) -> None:
    old, new = settings.AGS_ENCRYPTION_KEYS[0], bytes(range(100, 132))
    settings.AGS_ENCRYPTION_KEYS = (new, old)
    assert signed_on.refresh().status_code == 200, "the new token is signed with the newest key"
    SigningKey.objects.for_tenant("nagra").get().reencrypt()
    settings.AGS_ENCRYPTION_KEYS = (new,)
    assert signed_on.refresh().status_code == 200


# The request


BODIES: dict[str, tuple[bytes, str]] = {
    "none": (b"", ""),
    "none, though it is called JSON": (b"", "application/json"),
    "white space": (b" \r\n", "application/json"),
    "an empty object": (b"{}", "application/json"),
    "an empty object without a type": (b"{}", ""),
    "an empty object of another type": (b" { } ", "text/plain;charset=UTF-8"),
    "an empty form": (b"", "application/x-www-form-urlencoded"),
    "unknown members": (b'{"deviceInformation": {}}', "application/json"),
}


@pytest.mark.parametrize(("body", "content_type"), BODIES.values(), ids=BODIES)
def test_an_empty_body_is_accepted(signed_on: ClientApp, body: bytes, content_type: str) -> None:
    bearer = f"Bearer {signed_on.tokens['refresh_token']}"
    assert (
        signed_on.call(REFRESH_PATH, body, content_type=content_type, authorization=bearer).status_code == 200
    )


WRONG_BODIES = {
    "an array": (b"[]", 400),
    "a string": (b'"{}"', 400),
    "null": (b"null", 400),
    "not JSON": (b"refresh_token=x", 400),
    "half an object": (b"{", 400),
    "a member twice": (b'{"a": 1, "a": 2}', 400),
    "990 open brackets": (b"[" * 990, 400),
    "a NUL": (rb'{"a": "\u0000"}', 400),
    "not UTF-8": (b"\xff", 400),
    "too large": (b" " * 70_000, 413),
}


@pytest.mark.parametrize(("body", "status"), WRONG_BODIES.values(), ids=WRONG_BODIES)
@pytest.mark.parametrize("content_type", ["application/json", ""])
def test_an_invalid_body_is_rejected_and_uses_nothing_up(
    signed_on: ClientApp, body: bytes, status: int, content_type: str
) -> None:
    bearer = f"Bearer {signed_on.tokens['refresh_token']}"
    answer = signed_on.call(
        REFRESH_PATH, body, content_type=content_type, authorization=bearer, x_correlation_id=CORRELATION_ID
    )
    if status == 413:
        assert full_response(answer) == BODY_TOO_LARGE
    else:
        assert (answer.status_code, answer.json()["reason"]) == (400, "body_malformed")
    assert get_device().generation == 0


HEADERS: dict[str, tuple[dict[str, str | None], Any]] = {
    "nv-tenant-id": ({}, 200),
    "tenantId": ({"nv_tenant_id": None, "tenantId": "nagra"}, 200),
    "both, and they agree": ({"tenantId": "nagra"}, 200),
    "a header that is not needed": ({"x_auth_service_id": "anything"}, 200),
    "bearer in lower case": ({"authorization": "bearer {token}"}, 200),
    "neither": ({"nv_tenant_id": None}, header_missing("nv-tenant-id")),
    "both, and they differ": (
        {"tenantId": "sunrise"},
        error_response(
            400, 40002, "header_invalid", "The header tenantId does not have the documented format."
        ),
    ),
    "tenantId twice": (
        {"tenantId": "nagra,nagra"},
        error_response(
            400, 40003, "header_repeated", "The header tenantId occurs more than once or contains a comma."
        ),
    ),
    "tenantId of another form": (
        {"nv_tenant_id": None, "tenantId": "na gra"},
        error_response(
            400, 40002, "header_invalid", "The header nv-tenant-id does not have the documented format."
        ),
    ),
    "two tokens": (
        {"authorization": "Bearer {token},Bearer {token}"},
        error_response(
            400,
            40003,
            "header_repeated",
            "The header Authorization occurs more than once or contains a comma.",
        ),
    ),
    "no token": ({"authorization": None}, NOT_AUTHENTICATED),
    "a token without its scheme": ({"authorization": "{token}"}, NOT_AUTHENTICATED),
    "another scheme": ({"authorization": "Basic {token}"}, NOT_AUTHENTICATED),
    "the scheme alone": ({"authorization": "Bearer "}, NOT_AUTHENTICATED),
    "an unknown tenant": ({"nv_tenant_id": "nobody"}, SERVICE_NOT_AVAILABLE),
}


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_the_headers_are_validated(
    signed_on: ClientApp, headers: dict[str, str | None], expected: Any
) -> None:
    token = signed_on.tokens["refresh_token"]
    filled = {name: value and value.replace("{token}", token) for name, value in headers.items()}
    answer = signed_on.refresh(**{"x_correlation_id": CORRELATION_ID, **filled})
    if expected == 200:
        assert answer.status_code == 200
    else:
        assert full_response(answer) == expected
        assert get_device().generation == 0


def test_the_header_tenant_id_is_accepted_by_refresh_only(signed_on: ClientApp) -> None:
    answer = signed_on.sign_out(nv_tenant_id=None, tenantId="nagra", x_correlation_id=CORRELATION_ID)
    assert full_response(answer) == header_missing("nv-tenant-id")


def test_the_database_is_not_read_before_headers_and_body_are_valid(app: ClientApp) -> None:
    wrong: list[dict[str, Any]] = [
        {"nv_tenant_id": None},
        {"authorization": None},
        {"authorization": "Basic x"},
        {"tenantId": "sunrise"},
    ]
    with CaptureQueriesContext(connection) as captured:
        for headers in wrong:
            assert app.refresh("x", **headers).status_code in (400, 401)
        assert app.call(REFRESH_PATH, "[]", authorization="Bearer x").status_code == 400
    assert list(captured) == []


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


@contextmanager
def concurrent_refresh(refresh: Callable[[], Any]) -> Iterator[list[Any]]:
    """Let another request refresh between SELECT and UPDATE; yield a list with its response."""
    responses: list[Any] = []

    def refresh_before(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device") and not responses:
            responses.append(None)
            responses[0] = refresh()
        return execute(sql, *rest)

    with connection.execute_wrapper(refresh_before):
        yield responses


def fill_history(app: ClientApp) -> list[str]:
    """Refresh until the history of used tokens is full, and return them."""
    set_grace_period_of_a_minute()
    used = []
    for _ in range(MAX_USED):
        used.append(app.tokens["refresh_token"])
        assert app.refresh().status_code == 200
    return used


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


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """Return the log records about a restored database, of a process that has not logged any yet."""
    monkeypatch.setattr(database_behind, "reporter", database_behind.DatabaseBehindReporter())
    return lambda: [record for record in caplog.records if record.name == "ags.database"]


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
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
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


# Rejections


def set_account_status(status: str) -> Callable[[], None]:
    return lambda: update_row(Account, status=status)


def set_device_status(status: str) -> Callable[[], None]:
    return lambda: update_row(Device, status=status)


REJECTIONS: dict[str, tuple[Callable[[], None], Callable[[], None], dict[str, Any]]] = {
    "cancelled": (set_account_status("cancelled"), set_account_status("active"), ACCOUNT_CANCELLED),
    "suspended": (set_account_status("suspended"), set_account_status("active"), ACCOUNT_SUSPENDED),
    "the device is deleted": (set_device_status("deleted"), set_device_status("enabled"), DEVICE_UNKNOWN),
    "the device is disabled": (set_device_status("disabled"), set_device_status("enabled"), DEVICE_DISABLED),
    "the service is disabled": (
        lambda: update_row(Service, enabled=False),
        lambda: update_row(Service, enabled=True),
        SERVICE_NOT_AVAILABLE,
    ),
    "the tenant is disabled": (
        lambda: update_row(Tenant, enabled=False),
        lambda: update_row(Tenant, enabled=True),
        SERVICE_NOT_AVAILABLE,
    ),
}


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "undo", "expected"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_lasts_until_its_cause_is_removed(
    signed_on: ClientApp,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[], None],
    undo: Callable[[], None],
    expected: dict[str, Any],
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    used = signed_on.tokens["refresh_token"]
    signed_on.refresh()
    age_sign_on(60)
    reject()
    for token in (signed_on.tokens["refresh_token"], used):
        assert full_response(signed_on.refresh(token, x_correlation_id=CORRELATION_ID)) == expected
    assert get_events() == [], "use of a rejected token is not a sign of theft"
    undo()
    snapshot.invalidate("nagra")
    assert signed_on.refresh().status_code == 200


# SQL statements


def test_a_refresh_needs_at_most_three_statements(signed_on: ClientApp, stale_snapshots: None) -> None:
    used = signed_on.tokens["refresh_token"]

    def statements(token: str, status: int) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert signed_on.refresh(token).status_code == status
        return get_verbs(captured)

    assert statements(used, 200) == ["SELECT", "UPDATE"]
    assert statements(used, 200) == ["SELECT"], "within the grace period"
    age_sign_on(11)
    assert statements(used, 401) == ["SELECT", "UPDATE", "INSERT"], (
        "the sign-on ends, and a security event is recorded"
    )
    assert statements(used, 401) == ["SELECT"], "the sign-on has ended"


def test_a_request_is_retried_after_a_change_of_the_tenant(
    signed_on: ClientApp, stale_snapshots: None
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answer = signed_on.refresh()
    assert (answer.status_code, answer.json()["expires_in"]) == (200, 77)
    assert get_device().generation == 1


def test_constant_configuration_changes_are_a_503_and_use_nothing_up(
    signed_on: ClientApp,
) -> None:
    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert get_device().generation == 0
    assert signed_on.refresh().status_code == 200


def test_without_a_signing_key_nothing_is_used_up(signed_on: ClientApp) -> None:
    key = SigningKey.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert get_device().generation == 0


def test_a_database_error_uses_nothing_up(signed_on: ClientApp) -> None:
    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(signed_on.refresh(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
    assert signed_on.refresh().status_code == 200


def test_concurrent_refreshes_get_the_same_successor(signed_on: ClientApp) -> None:
    token = signed_on.tokens["refresh_token"]
    with concurrent_refresh(lambda: signed_on.refresh(token)) as faster:
        slower = signed_on.refresh(token)
    assert [slower.status_code, faster[0].status_code] == [200, 200]
    assert slower.json()["refresh_token"] == faster[0].json()["refresh_token"]
    assert (get_device().generation, get_events()) == (1, [])


# Forged and confused tokens


def b64(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def without_signature(token: str, alg: str) -> str:
    return f"{b64(jwt.get_unverified_header(token) | {'alg': alg})}.{b64(decode_claims(token))}.AAAA"


def tampered(token: str, **payload: Any) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{b64(decode_claims(token) | payload)}.{signature}"


def with_public_key(app: ClientApp, token: str, form: PublicFormat, encoding: Encoding) -> str:
    """Sign with HS256 and the public key as the secret (RFC 8725, 2.1)."""
    key = SigningKey.objects.for_tenant("nagra").get()
    secret = key.secret().public_key().public_bytes(encoding, form)
    signed = f"{b64({'alg': 'HS256', 'kid': key.kid})}.{b64(decode_claims(token))}"
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def sign_with_another_key(payload: dict[str, Any], **header: str) -> str:
    kid = SigningKey.objects.for_tenant("nagra").get().kid
    key = SigningKey.generate(Tenant(id="nagra"))
    return jwt.encode(payload, key.secret(), "ES256", {"kid": kid, **header})


def sign_with_head_end_key(app: ClientApp, payload: dict[str, Any]) -> str:
    return jwt.encode(payload, app.head_end.secret, "HS256", {"kid": app.head_end.kid})


def with_signature_of_zeros(token: str) -> str:
    """Append an ECDSA signature of zeros, which some libraries have accepted (CVE-2022-21449)."""
    return token.rpartition(".")[0] + "." + "A" * 86


Make = Callable[[ClientApp, str, str], str]
REFRESH, ACCESS, BOTH = ("refresh",), ("sign-out", "introspection"), ("refresh", "sign-out", "introspection")
DER = (PublicFormat.SubjectPublicKeyInfo, Encoding.DER)
PEM = (PublicFormat.SubjectPublicKeyInfo, Encoding.PEM)
POINT = (PublicFormat.UncompressedPoint, Encoding.X962)

INVALID_TOKENS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "an access token": (lambda app, a, r: a, REFRESH),
    "a refresh token": (lambda app, a, r: r, ("sign-out",)),
    "garbage": (lambda app, a, r: "garbage", BOTH),
    "two parts": (lambda app, a, r: a.rpartition(".")[0], BOTH),
    "letters of another script": (lambda app, a, r: "\u00e4.\u00e4.\u00e4", BOTH),
    "too long": (lambda app, a, r: a + "A" * 8192, BOTH),
    "an operator token": (lambda app, a, r: app.head_end.token(), BOTH),
    "access claims, signed by the head-end": (
        lambda app, a, r: sign_with_head_end_key(app, decode_claims(a)),
        BOTH,
    ),
    "refresh claims, signed by the head-end": (
        lambda app, a, r: sign_with_head_end_key(app, decode_claims(r)),
        BOTH,
    ),
    "access claims under the key of refresh tokens": (
        lambda app, a, r: sign_refresh_claims(decode_claims(a)),
        BOTH,
    ),
    "refresh claims under the key of access tokens": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(r)),
        BOTH,
    ),
    "refresh claims with the typ of access tokens": (
        lambda app, a, r: sign_refresh_claims(decode_claims(r) | {"typ": "DevAuthN"}),
        BOTH,
    ),
    "access claims with the typ of refresh tokens": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"typ": "RefreshAuthN"}),
        BOTH,
    ),
    "no typ": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "typ": None}), BOTH),
    "another tenant's claims": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "tenantId": "sunrise"}),
        BOTH,
    ),
    "refresh claims of another tenant": (
        lambda app, a, r: sign_refresh_claims({**decode_claims(r), "tenantId": "sunrise"}),
        BOTH,
    ),
    "alg none": (lambda app, a, r: without_signature(a, "none"), BOTH),
    "alg none for a refresh token": (lambda app, a, r: without_signature(r, "none"), BOTH),
    "an empty signature": (lambda app, a, r: a.rpartition(".")[0] + ".", BOTH),
    "a signature of zeros": (lambda app, a, r: with_signature_of_zeros(a), BOTH),
    "the public key in DER as a secret": (lambda app, a, r: with_public_key(app, a, *DER), BOTH),
    "the public key in PEM as a secret": (lambda app, a, r: with_public_key(app, a, *PEM), BOTH),
    "the point of the public key as a secret": (lambda app, a, r: with_public_key(app, a, *POINT), BOTH),
    "the public key as the secret of a refresh token": (
        lambda app, a, r: with_public_key(app, r, *DER),
        BOTH,
    ),
    "another key under the same kid": (lambda app, a, r: sign_with_another_key(decode_claims(a)), BOTH),
    "an unknown kid": (lambda app, a, r: sign_with_tenant_key(decode_claims(a), kid="unknown"), BOTH),
    "the header has crit": (lambda app, a, r: sign_with_tenant_key(decode_claims(a), crit=["exp"]), BOTH),
    "another key, at an address that the header names": (
        lambda app, a, r: sign_with_another_key(decode_claims(a), jku="https://x"),
        BOTH,
    ),
    "another account": (lambda app, a, r: tampered(a, accountId="another"), BOTH),
    "a later exp": (lambda app, a, r: tampered(a, exp=9_999_999_999), BOTH),
    "a refresh token with a later exp": (lambda app, a, r: tampered(r, exp=9_999_999_999), BOTH),
    "an access token that has expired": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": int(time.time()) - 1}),
        BOTH,
    ),
    "exp is a string": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": "9999999999"}),
        BOTH,
    ),
    "exp after the year 9999": (
        lambda app, a, r: sign_with_tenant_key(decode_claims(a) | {"exp": 10**12}),
        BOTH,
    ),
    "no exp": (
        lambda app, a, r: sign_with_tenant_key({n: v for n, v in decode_claims(a).items() if n != "exp"}),
        BOTH,
    ),
    "no sign-on": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": ""}), BOTH),
    "a sign-on that is a number": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": 1}),
        BOTH,
    ),
    "a jti that is too long": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "jti": "x" * 33}),
        BOTH,
    ),
    "an unknown sign-on": (
        lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "sid": "x" * 32, "jti": "y" * 32}),
        BOTH,
    ),
    "no device": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "deviceId": None}), BOTH),
    "no account": (lambda app, a, r: sign_with_tenant_key({**decode_claims(a), "accountId": None}), BOTH),
    "a payload that is no object": (
        lambda app, a, r: jwt.api_jws.encode(
            b"[]",
            SigningKey.objects.for_tenant("nagra").get().secret(),
            "ES256",
            {"kid": SigningKey.objects.for_tenant("nagra").get().kid},
        ),
        BOTH,
    ),
}


@pytest.mark.parametrize(("make", "endpoints"), INVALID_TOKENS.values(), ids=INVALID_TOKENS)
def test_a_forged_or_confused_token_is_rejected_everywhere(
    signed_on: ClientApp, make: Make, endpoints: tuple[str, ...]
) -> None:
    resource_server = create_platform("nagra")
    token = make(signed_on, signed_on.tokens["access_token"], signed_on.tokens["refresh_token"])
    if "refresh" in endpoints:
        assert full_response(signed_on.refresh(token, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    if "sign-out" in endpoints:
        assert full_response(signed_on.sign_out(token, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    if "introspection" in endpoints:
        answer = resource_server.introspect(token, hint="refresh_token")
        assert (answer.status_code, answer.json()) == (200, {"active": False})
        assert resource_server.revoke(token).status_code == 200
    assert resource_server.is_active(signed_on.tokens["access_token"]), "the rejected token has no effect"
    assert signed_on.refresh().status_code == 200
    assert signed_on.sign_out().status_code == 200
    assert get_events() == []


def test_a_token_of_another_tenant_is_rejected_everywhere(signed_on: ClientApp, sunrise: HeadEnd) -> None:
    theirs = ClientApp(sunrise)
    snapshot.invalidate("sunrise")
    theirs.sign_on()
    resource_server = create_platform("nagra")
    assert (
        full_response(signed_on.refresh(theirs.tokens["refresh_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    assert (
        full_response(signed_on.sign_out(theirs.tokens["access_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    for token in (theirs.tokens["access_token"], theirs.tokens["refresh_token"]):
        assert resource_server.introspect(token, hint="refresh_token").json() == {"active": False}
        assert resource_server.revoke(token).status_code == 200
    assert theirs.refresh().status_code == 200
    assert theirs.sign_out().status_code == 200


def test_a_platform_with_the_shared_secret_cannot_sign_refresh_tokens(app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get().delete()
    secret = bytes(range(200, 232))
    key = SigningKey.generate(tenant, state="active", secret=secret)
    key.save()
    app.sign_on()
    payload = decode_claims(app.tokens["refresh_token"])
    newer = payload | {"jti": payload["jti"].replace(".0", ".7")}
    for forged in (
        jwt.encode(payload, secret, "HS256", {"kid": key.kid}),
        jwt.encode(newer, secret, "HS256", {"kid": key.kid}),
        jwt.encode(
            payload, secret, "HS256", {"kid": jwt.get_unverified_header(app.tokens["refresh_token"])["kid"]}
        ),
    ):
        assert full_response(app.refresh(forged, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert app.refresh().status_code == 200


def test_the_times_of_a_sign_on_are_taken_from_the_databases_clock(app: ClientApp) -> None:
    before = database_now()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30), tick=True):
        app.sign_on()
        assert app.refresh().status_code == 200
    row = get_device()
    for end, seconds in ((row.refresh_expires_at, 172_800), (row.fixed_expires_at, 7_776_000)):
        # SQLite counts milliseconds.
        started_at = end - timedelta(seconds=seconds)
        assert before - timedelta(milliseconds=2) <= started_at <= database_now() + timedelta(milliseconds=2)
