"""Refreshing: both tokens are replaced, a lost answer is given again, a stolen token ends the sign-on."""

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
from ags.sessions.services import database_behind as module
from ags.sessions.services import refresh as refreshing
from ags.sessions.services.refresh import USED_KEPT
from tenants import snapshot as tenants_snapshot
from tenants.models import KeyState, Service, SigningKey, Tenant
from tenants.secrets.encryption import derive_keys, fingerprint
from tenants.snapshot import snapshot
from tests.api.test_refusals import ID, NOT_AVAILABLE, TOO_LARGE, UNAVAILABLE, missing, refusal, whole
from tests.conftest import ClientApp, HeadEnd, platform
from tests.sessions.database_clock import database_now
from tests.sessions.test_redeem import (
    CANCELLED,
    DISABLED,
    NOT_ACCEPTED,
    SUSPENDED,
    UNKNOWN,
    change,
    events,
    verbs,
)

PATH = "/ias/v3/token/actions/refresh"


@pytest.fixture
def signed_on(app: ClientApp) -> ClientApp:
    """The app, with a sign-on."""
    assert app.sign_on().status_code == 201
    return app


def device() -> Device:
    return Device.objects.for_tenant("nagra").get()


def claims(token: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


def let_pass(seconds: float) -> None:
    """Move all that the row knows of the past and of the future, instead of waiting."""
    row = device()
    for name in ("proven_at", "signed_on_at", "refresh_expires_at", "fixed_expires_at"):
        setattr(row, name, getattr(row, name) - timedelta(seconds=seconds))
    row.used = [[generation, at - seconds] for generation, at in row.used]
    row.save()


def as_ags_would(said: dict[str, Any]) -> str:
    """Sign these claims with the key of the refresh tokens."""
    key = derive_keys(b"refresh token")[0]
    return jwt.encode(said, key, "HS256", {"kid": fingerprint(key)})


# Rotation


def test_both_tokens_are_replaced_and_all_else_stays(signed_on: ClientApp) -> None:
    before = signed_on.tokens
    answer = signed_on.refresh()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    after = answer.json()
    assert list(after) == list(before)
    for name in ("access_token", "refresh_token"):
        first, second = claims(before[name]), claims(after[name])
        assert before[name] != after[name]
        assert first.pop("jti") != second.pop("jti")
        for moment in ("exp", "iat"):
            assert second.pop(moment, 0) >= first.pop(moment, 0)
        assert first == second, "fixed_exp included"
    for name in ("token_type", "client_id", "accountId", "expires_in", "refresh_expires_in"):
        assert after[name] == before[name]
    assert all(type(after[name]) is int for name in after if name.endswith("_in"))
    assert device().generation == 1


def test_the_fixed_end_never_moves_and_no_refresh_token_outlives_it(signed_on: ClientApp) -> None:
    let_pass(7_776_000 - 172_800 - 60)  # so that the refresh token at hand is good for a moment longer
    Device.unscoped.update(refresh_expires_at=F("fixed_expires_at"))
    fixed = int(device().fixed_expires_at.timestamp())
    tenant = Tenant.objects.get(pk="nagra")
    tenant.sign_on_ttl = 100_000_000
    tenant.save()
    snapshot.invalidate("nagra")
    let_pass(150_000)
    for _ in range(3):
        before = database_now().timestamp()
        given = signed_on.refresh().json()
        said = claims(given["refresh_token"])
        assert said["fixed_exp"] == said["exp"] == fixed - 150_000
        assert given["refresh_expires_in"] == given["fixed_refresh_expires_in"]
        # `exp` is rounded down, what is left to the nearest second.
        left = [said["exp"] - now for now in (database_now().timestamp(), before)]
        assert left[0] - 1 <= given["refresh_expires_in"] < left[1] + 2
    let_pass(172_800 + 60 - 150_000)
    assert signed_on.refresh().status_code == 401


def test_each_refresh_token_is_good_for_as_long_as_the_tenant_says_now(signed_on: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_token_ttl, tenant.access_token_ttl = 300, 60
    tenant.save()
    snapshot.invalidate("nagra")
    given = signed_on.refresh().json()
    assert (given["refresh_expires_in"], given["expires_in"]) == (300, 60)
    let_pass(301)
    assert whole(signed_on.refresh(x_correlation_id=ID)) == NOT_ACCEPTED


def test_a_refresh_token_that_says_it_has_expired_has_expired(signed_on: ClientApp) -> None:
    said = claims(signed_on.tokens["refresh_token"])
    past = as_ags_would(said | {"exp": int(time.time()) - 1})
    assert whole(signed_on.refresh(past, x_correlation_id=ID)) == NOT_ACCEPTED
    assert signed_on.refresh(as_ags_would(said)).status_code == 200, "only exp was at fault"
    assert events() == []


def test_a_refresh_token_is_read_under_every_encryption_key(signed_on: ClientApp, settings: Any) -> None:
    old, new = settings.AGS_ENCRYPTION_KEYS[0], bytes(range(100, 132))
    settings.AGS_ENCRYPTION_KEYS = (new, old)
    assert signed_on.refresh().status_code == 200, "and is signed with the newest from now on"
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
    "members that nobody asked for": (b'{"deviceInformation": {}}', "application/json"),
}


@pytest.mark.parametrize(("body", "content_type"), BODIES.values(), ids=BODIES)
def test_a_body_that_says_nothing_is_accepted(signed_on: ClientApp, body: bytes, content_type: str) -> None:
    bearer = f"Bearer {signed_on.tokens['refresh_token']}"
    assert signed_on.call(PATH, body, content_type=content_type, authorization=bearer).status_code == 200


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
def test_another_body_is_refused_and_uses_nothing_up(
    signed_on: ClientApp, body: bytes, status: int, content_type: str
) -> None:
    bearer = f"Bearer {signed_on.tokens['refresh_token']}"
    answer = signed_on.call(PATH, body, content_type=content_type, authorization=bearer, x_correlation_id=ID)
    if status == 413:
        assert whole(answer) == TOO_LARGE
    else:
        assert (answer.status_code, answer.json()["reason"]) == (400, "body_malformed")
    assert device().generation == 0


HEADERS: dict[str, tuple[dict[str, str | None], Any]] = {
    "nv-tenant-id": ({}, 200),
    "tenantId": ({"nv_tenant_id": None, "tenantId": "nagra"}, 200),
    "both, and they agree": ({"tenantId": "nagra"}, 200),
    "a service that is not asked for": ({"x_auth_service_id": "anything"}, 200),
    "bearer in lower case": ({"authorization": "bearer {token}"}, 200),
    "neither": ({"nv_tenant_id": None}, missing("nv-tenant-id")),
    "both, and they differ": (
        {"tenantId": "sunrise"},
        refusal(400, 40002, "header_invalid", "The header tenantId is not of the documented form."),
    ),
    "tenantId twice": (
        {"tenantId": "nagra,nagra"},
        refusal(400, 40003, "header_repeated", "The header tenantId is sent twice, or holds a comma."),
    ),
    "tenantId of another form": (
        {"nv_tenant_id": None, "tenantId": "na gra"},
        refusal(400, 40002, "header_invalid", "The header nv-tenant-id is not of the documented form."),
    ),
    "two tokens": (
        {"authorization": "Bearer {token},Bearer {token}"},
        refusal(400, 40003, "header_repeated", "The header Authorization is sent twice, or holds a comma."),
    ),
    "no token": ({"authorization": None}, NOT_ACCEPTED),
    "a token without its scheme": ({"authorization": "{token}"}, NOT_ACCEPTED),
    "another scheme": ({"authorization": "Basic {token}"}, NOT_ACCEPTED),
    "the scheme alone": ({"authorization": "Bearer "}, NOT_ACCEPTED),
    "an unknown tenant": ({"nv_tenant_id": "nobody"}, NOT_AVAILABLE),
}


@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_the_headers(signed_on: ClientApp, headers: dict[str, str | None], expected: Any) -> None:
    token = signed_on.tokens["refresh_token"]
    given = {name: value and value.replace("{token}", token) for name, value in headers.items()}
    answer = signed_on.refresh(**{"x_correlation_id": ID, **given})
    if expected == 200:
        assert answer.status_code == 200
    else:
        assert whole(answer) == expected
        assert device().generation == 0


def test_the_older_name_of_the_tenant_is_known_at_this_address_only(signed_on: ClientApp) -> None:
    answer = signed_on.sign_out(nv_tenant_id=None, tenantId="nagra", x_correlation_id=ID)
    assert whole(answer) == missing("nv-tenant-id")


def test_nothing_is_read_before_headers_and_body_are_in_order(app: ClientApp) -> None:
    wrong: list[dict[str, Any]] = [
        {"nv_tenant_id": None},
        {"authorization": None},
        {"authorization": "Basic x"},
        {"tenantId": "sunrise"},
    ]
    with CaptureQueriesContext(connection) as captured:
        for headers in wrong:
            assert app.refresh("x", **headers).status_code in (400, 401)
        assert app.call(PATH, "[]", authorization="Bearer x").status_code == 400
    assert list(captured) == []


# A token that has been used


def test_within_the_grace_a_used_token_gets_the_same_successor(signed_on: ClientApp) -> None:
    first = signed_on.tokens["refresh_token"]
    second = signed_on.refresh(first).json()
    for _ in range(3):
        again = signed_on.refresh(first)
        assert again.status_code == 200
        assert again.json()["refresh_token"] == second["refresh_token"], "to the byte"
        assert again.json()["access_token"] != second["access_token"]
    assert device().generation == 1
    third = signed_on.refresh(second["refresh_token"]).json()
    for used in (first, second["refresh_token"]):
        assert signed_on.refresh(used).json()["refresh_token"] == third["refresh_token"]
    assert signed_on.refresh(third["refresh_token"]).status_code == 200
    assert events() == []


@pytest.mark.parametrize("grace", [10, 60, 0])
def test_after_the_grace_a_used_token_ends_the_sign_on(signed_on: ClientApp, grace: int) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_grace = grace
    tenant.save()
    snapshot.invalidate("nagra")
    first = signed_on.tokens
    second = signed_on.refresh().json()
    if grace:
        let_pass(grace // 2)
        assert signed_on.refresh(first["refresh_token"]).status_code == 200
        let_pass(grace // 2 + 1)
    assert whole(signed_on.refresh(first["refresh_token"], x_correlation_id=ID)) == NOT_ACCEPTED
    row = device()
    assert (row.ended_at is not None, row.end_reason) == (True, "refresh_token_reused")
    for used in (first, second, second):
        assert whole(signed_on.refresh(used["refresh_token"], x_correlation_id=ID)) == NOT_ACCEPTED
        assert signed_on.sign_out(used["access_token"]).status_code == 401
    event = SecurityEvent.objects.for_tenant("nagra").get()
    assert (event.kind, event.subject, event.account_id, event.times, event.correlation_id) == (
        "refresh_token_reused",
        row.sign_on,
        "account-1",
        1,
        ID,
    )
    assert signed_on.sign_on(clientId=second["client_id"]).status_code == 201, "the device is not to blame"
    assert signed_on.refresh().status_code == 200


def test_the_reuse_of_a_token_that_has_expired_ends_the_sign_on_too(signed_on: ClientApp) -> None:
    """The thief goes on while the honest client is offline."""
    stolen = claims(signed_on.tokens["refresh_token"])
    thief = signed_on.refresh().json()["refresh_token"]
    past = as_ags_would(stolen | {"exp": int(time.time()) - 1})
    assert whole(signed_on.refresh(past, x_correlation_id=ID)) == NOT_ACCEPTED
    assert events() == [], "within the grace it has only expired"
    let_pass(11)
    assert whole(signed_on.refresh(past, x_correlation_id=ID)) == NOT_ACCEPTED
    assert device().end_reason == "refresh_token_reused"
    assert events() == [("refresh_token_reused", "account-1", 1)]
    assert signed_on.refresh(thief).status_code == 401


@contextmanager
def overtaken_by(refresh: Callable[[], Any]) -> Iterator[list[Any]]:
    """Have another request refresh once between the SELECT and the UPDATE; yield a list of its response."""
    responses: list[Any] = []

    def overtaken(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device") and not responses:
            responses.append(None)
            responses[0] = refresh()
        return execute(sql, *rest)

    with connection.execute_wrapper(overtaken):
        yield responses


def take_a_minute_of_grace() -> None:
    """Let no test depend on how fast it runs."""
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_grace = 60
    tenant.save()
    snapshot.invalidate("nagra")


def fill_history(app: ClientApp) -> list[str]:
    """Refresh until no further used token can be remembered; return the used ones."""
    take_a_minute_of_grace()
    used = []
    for _ in range(USED_KEPT):
        used.append(app.tokens["refresh_token"])
        assert app.refresh().status_code == 200
    return used


def test_a_refresh_that_would_forget_a_token_within_its_grace_is_refused_and_harms_nothing(
    signed_on: ClientApp, stays_stale: None
) -> None:
    used = fill_history(signed_on)
    before = Device.unscoped.values().get()
    leaves = before["used"][0][1] + 60
    earliest = leaves - time.time()
    with CaptureQueriesContext(connection) as captured:
        answer = signed_on.refresh(x_correlation_id=ID)
    assert (answer.status_code, verbs(captured)) == (429, ["SELECT"])
    assert answer.json() == {
        "code": 42901,
        "reason": "too_many_refreshes",
        "message": "Too many refreshes in a short time. Retry after the seconds in the Retry-After header.",
        "correlationId": ID,
    }
    wait = int(answer.headers["Retry-After"])
    assert leaves - time.time() <= wait <= earliest + 1.1, "until the oldest one leaves its grace"
    assert Device.unscoped.values().get() == before
    last = signed_on.tokens["refresh_token"]
    for token in used:
        assert signed_on.refresh(token).json()["refresh_token"] == last, "a retry uses nothing up"
    let_pass(wait)
    assert signed_on.refresh().status_code == 200
    assert events() == []


@pytest.mark.parametrize("reused", [0, 1, USED_KEPT - 1])
@pytest.mark.parametrize("refused", [False, True])
def test_however_many_tokens_were_used_the_reuse_of_any_ends_the_sign_on(
    signed_on: ClientApp, reused: int, refused: bool
) -> None:
    used = fill_history(signed_on)
    if refused:
        assert signed_on.refresh().status_code == 429
    let_pass(61)
    assert whole(signed_on.refresh(used[reused], x_correlation_id=ID)) == NOT_ACCEPTED
    assert device().end_reason == "refresh_token_reused"
    assert events() == [("refresh_token_reused", "account-1", 1)]
    assert whole(signed_on.refresh(x_correlation_id=ID)) == NOT_ACCEPTED


def test_a_used_token_is_forgotten_once_its_grace_is_over(signed_on: ClientApp) -> None:
    for _ in range(3):
        signed_on.refresh()
    assert [generation for generation, _ in device().used] == [0, 1, 2]
    let_pass(11)
    signed_on.refresh()
    assert [generation for generation, _ in device().used] == [3]


def test_the_grace_of_a_used_token_is_its_own_and_not_that_of_the_next(
    signed_on: ClientApp, lines: Callable[[], list[Any]]
) -> None:
    take_a_minute_of_grace()
    first = signed_on.tokens["refresh_token"]
    for _ in range(2):
        signed_on.refresh()
        let_pass(31)
    assert [generation for generation, _ in device().used] == [0, 1]
    assert whole(signed_on.refresh(first, x_correlation_id=ID)) == NOT_ACCEPTED
    assert events() == [("refresh_token_reused", "account-1", 1)]
    assert lines() == [], "the database is not behind"


# A database that went back in time


@dataclass
class Behind:
    """A sign-on with tokens of generations 0 to 5, whose row the database remembers as it was at first."""

    app: ClientApp
    tokens: list[str]
    restored: dict[str, Any]

    def restore(self, **changes: Any) -> None:
        """Put the row back, as a restore does."""
        Device.unscoped.update(**(self.restored | changes))

    def refresh(self, generation: int) -> Any:
        """Refresh with the token of that generation."""
        return self.app.refresh(self.tokens[generation])


@pytest.fixture
def behind(signed_on: ClientApp) -> Behind:
    take_a_minute_of_grace()
    row = Device.unscoped.values().get()
    tokens = [signed_on.tokens["refresh_token"]]
    tokens += [signed_on.refresh().json()["refresh_token"] for _ in range(5)]
    behind = Behind(signed_on, tokens, row)
    behind.restore()
    return behind


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[Any]]:
    """What is logged of a database that is behind, by a process that has logged nothing yet."""
    monkeypatch.setattr(refreshing, "database_behind", module.DatabaseBehind())
    return lambda: [record for record in caplog.records if record.name == "ags.database"]


@pytest.mark.parametrize("generation", [1, 3, 5])
def test_a_token_that_the_database_has_not_reached_is_accepted_and_moves_it_forward(
    behind: Behind, generation: int, lines: Callable[[], list[Any]], stays_stale: None
) -> None:
    with CaptureQueriesContext(connection) as captured:
        answer = behind.refresh(generation)
    assert (answer.status_code, verbs(captured)) == (200, ["SELECT", "UPDATE"])
    successor = answer.json()["refresh_token"]
    row = device()
    assert row.generation == generation + 1
    assert claims(successor)["jti"] == f"{row.sign_on}.{generation + 1}"
    again = behind.refresh(generation)
    assert (again.status_code, again.json()["refresh_token"]) == (200, successor), "a retry as any other"
    assert [line.getMessage() for line in lines()] == ["database_behind"]
    assert behind.app.refresh(successor).status_code == 200
    assert (device().generation, events()) == (generation + 2, [])


def test_a_database_that_is_behind_is_logged_once_a_minute(
    behind: Behind, lines: Callable[[], list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(module, "time", clock)
    for clock.now, expected in [(1000.0, 1), (1001.0, 1), (1059.9, 1), (1060.0, 2), (1119.9, 2), (1120.0, 3)]:
        behind.restore()
        assert behind.app.refresh(behind.tokens[2], x_correlation_id=ID).status_code == 200
        assert len(lines()) == expected
    (line, *_) = lines()
    assert (line.levelname, line.tenant, line.correlation_id) == ("ERROR", "nagra", ID)


def test_a_copy_with_a_still_newer_token_goes_on_too(behind: Behind) -> None:
    here = behind.refresh(2).json()["refresh_token"]
    there = behind.refresh(5).json()["refresh_token"]
    assert claims(there)["jti"].endswith(".6")
    for token in (*behind.tokens, here):
        assert behind.app.refresh(token).json()["refresh_token"] == there, "within the grace of the moment"
    assert behind.app.refresh(there).status_code == 200
    assert events() == []


@pytest.mark.parametrize("generation", range(6))
def test_a_database_that_was_behind_knows_a_used_token_after_the_grace(
    behind: Behind, generation: int
) -> None:
    behind.refresh(2)
    behind.refresh(5)
    let_pass(61)
    assert whole(behind.app.refresh(behind.tokens[generation], x_correlation_id=ID)) == NOT_ACCEPTED
    assert device().end_reason == "refresh_token_reused"
    assert events() == [("refresh_token_reused", "account-1", 1)]


def test_what_was_used_before_the_database_went_back_gets_no_new_grace(signed_on: ClientApp) -> None:
    first = signed_on.tokens["refresh_token"]
    signed_on.refresh()
    let_pass(11)
    row = Device.unscoped.values().get()
    for _ in range(2):
        signed_on.refresh()
    Device.unscoped.update(**row)
    assert signed_on.refresh().status_code == 200
    assert whole(signed_on.refresh(first, x_correlation_id=ID)) == NOT_ACCEPTED
    assert events() == [("refresh_token_reused", "account-1", 1)]


def test_a_newer_token_is_good_until_its_own_end(behind: Behind) -> None:
    said = claims(behind.tokens[5])
    behind.restore(refresh_expires_at=datetime.now(UTC) - timedelta(hours=1))
    past = as_ags_would(said | {"exp": int(time.time()) - 1})
    assert whole(behind.app.refresh(past, x_correlation_id=ID)) == NOT_ACCEPTED
    assert whole(behind.app.refresh(behind.tokens[0], x_correlation_id=ID)) == NOT_ACCEPTED
    assert device().generation == 0
    given = behind.refresh(5).json()
    assert 172_000 < given["refresh_expires_in"] <= 172_800
    assert events() == []


def ended(behind: Behind) -> None:
    behind.restore(ended_at=datetime.now(UTC), end_reason="revoked")


def over(behind: Behind) -> None:
    behind.restore(fixed_expires_at=datetime.now(UTC) - timedelta(seconds=1))


def replaced(behind: Behind) -> None:
    behind.restore(sign_on="0" * 32)


@pytest.mark.parametrize(
    ("fall", "expected"),
    [
        (ended, NOT_ACCEPTED),
        (over, NOT_ACCEPTED),
        (replaced, NOT_ACCEPTED),
        (lambda behind: behind.restore(status="deleted"), UNKNOWN),
        (lambda behind: behind.restore(status="disabled"), DISABLED),
        (lambda behind: change(Account, status="suspended"), SUSPENDED),
        (lambda behind: change(Account, revoked_before=datetime.now(UTC)), NOT_ACCEPTED),
        (lambda behind: Device.unscoped.all().delete(), NOT_ACCEPTED),
    ],
    ids=["ended", "over", "replaced", "deleted", "disabled", "suspended", "revoked", "gone"],
)
def test_a_newer_token_of_what_does_not_stand_is_refused_and_moves_nothing(
    behind: Behind, fall: Callable[[Behind], None], expected: Any, lines: Callable[[], list[Any]]
) -> None:
    fall(behind)
    rows = list(Device.unscoped.values())
    assert whole(behind.app.refresh(behind.tokens[5], x_correlation_id=ID)) == expected
    assert list(Device.unscoped.values()) == rows
    assert (events(), lines()) == ([], [])


def test_a_newer_token_is_refused_where_the_history_has_no_room_for_what_it_skips(
    signed_on: ClientApp,
) -> None:
    fill_history(signed_on)
    row = device()
    Device.unscoped.update(generation=USED_KEPT - 1, used=row.used[:-1])
    answer = signed_on.refresh()
    assert (answer.status_code, answer.json()["reason"]) == (429, "too_many_refreshes")
    let_pass(int(answer.headers["Retry-After"]))
    assert signed_on.refresh().status_code == 200
    assert events() == []


@pytest.mark.parametrize(("slower", "faster"), [(2, 5), (5, 2), (5, 4), (0, 5), (5, 0)])
def test_two_copies_that_find_the_database_behind_at_once_both_go_on(
    behind: Behind, slower: int, faster: int
) -> None:
    with overtaken_by(lambda: behind.refresh(faster)) as first:
        second = behind.refresh(slower)
    assert [first[0].status_code, second.status_code] == [200, 200]
    assert device().generation == 6
    assert behind.app.refresh(second.json()["refresh_token"]).status_code == 200
    assert events() == []


# What stands behind it is asked each time


def of_the_account(status: str) -> Callable[[], None]:
    return lambda: change(Account, status=status)


def of_the_device(status: str) -> Callable[[], None]:
    return lambda: change(Device, status=status)


FORBIDDEN: dict[str, tuple[Callable[[], None], Callable[[], None], dict[str, Any]]] = {
    "cancelled": (of_the_account("cancelled"), of_the_account("active"), CANCELLED),
    "suspended": (of_the_account("suspended"), of_the_account("active"), SUSPENDED),
    "the device is deleted": (of_the_device("deleted"), of_the_device("enabled"), UNKNOWN),
    "the device is disabled": (of_the_device("disabled"), of_the_device("enabled"), DISABLED),
    "the service is disabled": (
        lambda: change(Service, enabled=False),
        lambda: change(Service, enabled=True),
        NOT_AVAILABLE,
    ),
    "the tenant is disabled": (
        lambda: change(Tenant, enabled=False),
        lambda: change(Tenant, enabled=True),
        NOT_AVAILABLE,
    ),
}


@pytest.mark.parametrize("stale", [False, True], ids=["noticed", "not noticed"])
@pytest.mark.parametrize(("forbid", "permit", "expected"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_what_policy_forbids_is_a_403_until_it_is_permitted_again(
    signed_on: ClientApp,
    monkeypatch: pytest.MonkeyPatch,
    forbid: Callable[[], None],
    permit: Callable[[], None],
    expected: dict[str, Any],
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    used = signed_on.tokens["refresh_token"]
    signed_on.refresh()
    let_pass(60)
    forbid()
    for token in (signed_on.tokens["refresh_token"], used):
        assert whole(signed_on.refresh(token, x_correlation_id=ID)) == expected
    assert events() == [], "what is forbidden is not what has been stolen"
    permit()
    snapshot.invalidate("nagra")
    assert signed_on.refresh().status_code == 200


# The statements


def test_a_refresh_is_at_most_three_statements(signed_on: ClientApp, stays_stale: None) -> None:
    used = signed_on.tokens["refresh_token"]

    def statements(token: str, status: int) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            assert signed_on.refresh(token).status_code == status
        return verbs(captured)

    assert statements(used, 200) == ["SELECT", "UPDATE"]
    assert statements(used, 200) == ["SELECT"], "within the grace"
    let_pass(11)
    assert statements(used, 401) == ["SELECT", "UPDATE", "INSERT"], "the sign-on ends, and it is recorded"
    assert statements(used, 401) == ["SELECT"], "it has ended"


def test_a_tenant_that_changed_meanwhile_is_looked_at_again_and_served(
    signed_on: ClientApp, stays_stale: None
) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answer = signed_on.refresh()
    assert (answer.status_code, answer.json()["expires_in"]) == (200, 77)
    assert device().generation == 1


def test_a_configuration_that_will_not_stand_still_is_a_503_and_uses_nothing_up(
    signed_on: ClientApp,
) -> None:
    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert whole(signed_on.refresh(x_correlation_id=ID)) == UNAVAILABLE
    assert device().generation == 0
    assert signed_on.refresh().status_code == 200


def test_where_no_key_can_sign_nothing_is_used_up(signed_on: ClientApp) -> None:
    key = SigningKey.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert whole(signed_on.refresh(x_correlation_id=ID)) == UNAVAILABLE
    assert device().generation == 0


def test_a_database_that_fails_in_the_middle_uses_nothing_up(signed_on: ClientApp) -> None:
    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_device"):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert whole(signed_on.refresh(x_correlation_id=ID)) == UNAVAILABLE
    assert signed_on.refresh().status_code == 200


def test_somebody_who_was_faster_between_the_two_statements_gets_the_same(signed_on: ClientApp) -> None:
    token = signed_on.tokens["refresh_token"]
    with overtaken_by(lambda: signed_on.refresh(token)) as faster:
        slower = signed_on.refresh(token)
    assert [slower.status_code, faster[0].status_code] == [200, 200]
    assert slower.json()["refresh_token"] == faster[0].json()["refresh_token"]
    assert (device().generation, events()) == (1, [])


# Tokens that are something else


def b64(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def without_signature(token: str, alg: str) -> str:
    return f"{b64(jwt.get_unverified_header(token) | {'alg': alg})}.{b64(claims(token))}.AAAA"


def tampered(token: str, **said: Any) -> str:
    head, _, signature = token.split(".")
    return f"{head}.{b64(claims(token) | said)}.{signature}"


def with_public_key(app: ClientApp, token: str, form: PublicFormat, encoding: Encoding) -> str:
    """Signed with HS256 and what everybody can read as the secret, the oldest trick (RFC 8725, 2.1)."""
    key = SigningKey.objects.for_tenant("nagra").get()
    secret = key.secret().public_key().public_bytes(encoding, form)
    signed = f"{b64({'alg': 'HS256', 'kid': key.kid})}.{b64(claims(token))}"
    digest = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def by_the_tenants_key(said: dict[str, Any], **header: Any) -> str:
    key = SigningKey.objects.for_tenant("nagra").get()
    return jwt.encode(said, key.secret(), key.algorithm, {"kid": key.kid, **header})


def by_another_key(said: dict[str, Any], **header: str) -> str:
    kid = SigningKey.objects.for_tenant("nagra").get().kid
    key = SigningKey.generate(Tenant(id="nagra"))
    return jwt.encode(said, key.secret(), "ES256", {"kid": kid, **header})


def by_the_head_end(app: ClientApp, said: dict[str, Any]) -> str:
    return jwt.encode(said, app.head_end.secret, "HS256", {"kid": app.head_end.kid})


def psychic(token: str) -> str:
    """An ECDSA signature of zeros, which broken libraries accept for everything."""
    return token.rpartition(".")[0] + "." + "A" * 86


Make = Callable[[ClientApp, str, str], str]
REFRESH, ACCESS, BOTH = ("refresh",), ("sign-out", "introspection"), ("refresh", "sign-out", "introspection")
DER = (PublicFormat.SubjectPublicKeyInfo, Encoding.DER)
PEM = (PublicFormat.SubjectPublicKeyInfo, Encoding.PEM)
POINT = (PublicFormat.UncompressedPoint, Encoding.X962)

CONFUSED: dict[str, tuple[Make, tuple[str, ...]]] = {
    "an access token": (lambda app, a, r: a, REFRESH),
    "a refresh token": (lambda app, a, r: r, ("sign-out",)),
    "garbage": (lambda app, a, r: "garbage", BOTH),
    "two parts": (lambda app, a, r: a.rpartition(".")[0], BOTH),
    "letters of another script": (lambda app, a, r: "\u00e4.\u00e4.\u00e4", BOTH),
    "too long": (lambda app, a, r: a + "A" * 8192, BOTH),
    "an operator token": (lambda app, a, r: app.head_end.token(), BOTH),
    "access claims, signed by the head-end": (lambda app, a, r: by_the_head_end(app, claims(a)), BOTH),
    "refresh claims, signed by the head-end": (lambda app, a, r: by_the_head_end(app, claims(r)), BOTH),
    "access claims under the key of refresh tokens": (lambda app, a, r: as_ags_would(claims(a)), BOTH),
    "refresh claims under the key of access tokens": (lambda app, a, r: by_the_tenants_key(claims(r)), BOTH),
    "refresh claims with the typ of access tokens": (
        lambda app, a, r: as_ags_would(claims(r) | {"typ": "DevAuthN"}),
        BOTH,
    ),
    "access claims with the typ of refresh tokens": (
        lambda app, a, r: by_the_tenants_key(claims(a) | {"typ": "RefreshAuthN"}),
        BOTH,
    ),
    "no typ": (lambda app, a, r: by_the_tenants_key({**claims(a), "typ": None}), BOTH),
    "another tenant's claims": (
        lambda app, a, r: by_the_tenants_key({**claims(a), "tenantId": "sunrise"}),
        BOTH,
    ),
    "refresh claims of another tenant": (
        lambda app, a, r: as_ags_would({**claims(r), "tenantId": "sunrise"}),
        BOTH,
    ),
    "alg none": (lambda app, a, r: without_signature(a, "none"), BOTH),
    "alg none for a refresh token": (lambda app, a, r: without_signature(r, "none"), BOTH),
    "an empty signature": (lambda app, a, r: a.rpartition(".")[0] + ".", BOTH),
    "a signature of zeros": (lambda app, a, r: psychic(a), BOTH),
    "the public key in DER as a secret": (lambda app, a, r: with_public_key(app, a, *DER), BOTH),
    "the public key in PEM as a secret": (lambda app, a, r: with_public_key(app, a, *PEM), BOTH),
    "the point of the public key as a secret": (lambda app, a, r: with_public_key(app, a, *POINT), BOTH),
    "the public key as the secret of a refresh token": (
        lambda app, a, r: with_public_key(app, r, *DER),
        BOTH,
    ),
    "another key under the same kid": (lambda app, a, r: by_another_key(claims(a)), BOTH),
    "an unknown kid": (lambda app, a, r: by_the_tenants_key(claims(a), kid="unknown"), BOTH),
    "the header has crit": (lambda app, a, r: by_the_tenants_key(claims(a), crit=["exp"]), BOTH),
    "another key, at an address that the header names": (
        lambda app, a, r: by_another_key(claims(a), jku="https://x"),
        BOTH,
    ),
    "another account": (lambda app, a, r: tampered(a, accountId="another"), BOTH),
    "a later end": (lambda app, a, r: tampered(a, exp=9_999_999_999), BOTH),
    "a refresh token with a later end": (lambda app, a, r: tampered(r, exp=9_999_999_999), BOTH),
    "an access token that has expired": (
        lambda app, a, r: by_the_tenants_key(claims(a) | {"exp": int(time.time()) - 1}),
        BOTH,
    ),
    "an end that is a string": (
        lambda app, a, r: by_the_tenants_key(claims(a) | {"exp": "9999999999"}),
        BOTH,
    ),
    "an end past all time": (lambda app, a, r: by_the_tenants_key(claims(a) | {"exp": 10**12}), BOTH),
    "no end": (
        lambda app, a, r: by_the_tenants_key({n: v for n, v in claims(a).items() if n != "exp"}),
        BOTH,
    ),
    "no sign-on": (lambda app, a, r: by_the_tenants_key({**claims(a), "sid": ""}), BOTH),
    "a sign-on that is a number": (lambda app, a, r: by_the_tenants_key({**claims(a), "sid": 1}), BOTH),
    "a jti that is too long": (lambda app, a, r: by_the_tenants_key({**claims(a), "jti": "x" * 33}), BOTH),
    "a sign-on that is none": (
        lambda app, a, r: by_the_tenants_key({**claims(a), "sid": "x" * 32, "jti": "y" * 32}),
        BOTH,
    ),
    "no device": (lambda app, a, r: by_the_tenants_key({**claims(a), "deviceId": None}), BOTH),
    "no account": (lambda app, a, r: by_the_tenants_key({**claims(a), "accountId": None}), BOTH),
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


@pytest.mark.parametrize(("make", "doors"), CONFUSED.values(), ids=CONFUSED)
def test_a_token_that_is_something_else_opens_no_door(
    signed_on: ClientApp, make: Make, doors: tuple[str, ...]
) -> None:
    resource_server = platform("nagra")
    token = make(signed_on, signed_on.tokens["access_token"], signed_on.tokens["refresh_token"])
    if "refresh" in doors:
        assert whole(signed_on.refresh(token, x_correlation_id=ID)) == NOT_ACCEPTED
    if "sign-out" in doors:
        assert whole(signed_on.sign_out(token, x_correlation_id=ID)) == NOT_ACCEPTED
    if "introspection" in doors:
        answer = resource_server.introspect(token, hint="refresh_token")
        assert (answer.status_code, answer.json()) == (200, {"active": False})
        assert resource_server.revoke(token).status_code == 200
    assert resource_server.sees(signed_on.tokens["access_token"]), "it has changed nothing"
    assert signed_on.refresh().status_code == 200
    assert signed_on.sign_out().status_code == 200
    assert events() == []


def test_a_token_of_another_tenant_opens_no_door(signed_on: ClientApp, sunrise: HeadEnd) -> None:
    theirs = ClientApp(sunrise)
    snapshot.invalidate("sunrise")
    theirs.sign_on()
    resource_server = platform("nagra")
    assert whole(signed_on.refresh(theirs.tokens["refresh_token"], x_correlation_id=ID)) == NOT_ACCEPTED
    assert whole(signed_on.sign_out(theirs.tokens["access_token"], x_correlation_id=ID)) == NOT_ACCEPTED
    for token in (theirs.tokens["access_token"], theirs.tokens["refresh_token"]):
        assert resource_server.introspect(token, hint="refresh_token").json() == {"active": False}
        assert resource_server.revoke(token).status_code == 200
    assert theirs.refresh().status_code == 200
    assert theirs.sign_out().status_code == 200


def test_a_platform_that_shares_the_secret_cannot_make_a_refresh_token(app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get().delete()
    secret = bytes(range(200, 232))
    key = SigningKey.generate(tenant, state="active", secret=secret)
    key.save()
    app.sign_on()
    said = claims(app.tokens["refresh_token"])
    newer = said | {"jti": said["jti"].replace(".0", ".7")}
    for made in (
        jwt.encode(said, secret, "HS256", {"kid": key.kid}),
        jwt.encode(newer, secret, "HS256", {"kid": key.kid}),
        jwt.encode(
            said, secret, "HS256", {"kid": jwt.get_unverified_header(app.tokens["refresh_token"])["kid"]}
        ),
    ):
        assert whole(app.refresh(made, x_correlation_id=ID)) == NOT_ACCEPTED
    assert app.refresh().status_code == 200


def test_the_times_of_a_sign_on_are_those_of_the_databases_clock(app: ClientApp) -> None:
    before = database_now()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30), tick=True):
        app.sign_on()
        assert app.refresh().status_code == 200
    row = device()
    for end, seconds in ((row.refresh_expires_at, 172_800), (row.fixed_expires_at, 7_776_000)):
        # SQLite counts milliseconds.
        moment = end - timedelta(seconds=seconds)
        assert before - timedelta(milliseconds=2) <= moment <= database_now() + timedelta(milliseconds=2)
