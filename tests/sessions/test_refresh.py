"""Refreshing: rotation, lifetimes and invalid requests."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import Device
from tenants.models import SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.responses import (
    BODY_TOO_LARGE,
    CORRELATION_ID,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
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
    sign_refresh_claims,
)

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
        before = get_database_time().timestamp()
        body = signed_on.refresh().json()
        payload = decode_claims(body["refresh_token"])
        assert payload["fixed_exp"] == payload["exp"] == fixed - 150_000
        assert body["refresh_expires_in"] == body["fixed_refresh_expires_in"]
        # `exp` is rounded down, what is left to the nearest second.
        left = [payload["exp"] - now for now in (get_database_time().timestamp(), before)]
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
    SigningKey.objects.for_tenant("nagra").get(state="active").reencrypt()
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


def test_the_times_of_a_sign_on_are_taken_from_the_databases_clock(app: ClientApp) -> None:
    before = get_database_time()
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=30), tick=True):
        app.sign_on()
        assert app.refresh().status_code == 200
    row = get_device()
    for end, seconds in ((row.refresh_expires_at, 172_800), (row.fixed_expires_at, 7_776_000)):
        # SQLite counts milliseconds.
        started_at = end - timedelta(seconds=seconds)
        tolerance = timedelta(milliseconds=2)
        assert before - tolerance <= started_at <= get_database_time() + tolerance
