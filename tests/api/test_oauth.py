"""Token introspection (RFC 7662) and revocation (RFC 7009)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Device
from tenants.models import SigningKey, Tenant
from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.database import get_verbs
from tests.support.operators import create_platform
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response
from tests.support.sign_ons import age_sign_on, decode_claims, sign_refresh_claims

# Introspection


def test_active_access_token(server: Platform, tokens: dict[str, Any]) -> None:
    response = server.introspect(tokens["access_token"])
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    payload = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    assert response.json() == payload | {
        "active": True,
        "token_type": "bearer",
        "client_id": tokens["client_id"],
        "sub": "Kühn 7",
    }
    assert all(type(response.json()[name]) is int for name in ("iat", "exp"))


def test_active_refresh_token(server: Platform, tokens: dict[str, Any]) -> None:
    payload = jwt.decode(tokens["refresh_token"], options={"verify_signature": False})
    assert server.introspect(tokens["refresh_token"], hint="refresh_token").json() == payload | {
        "active": True,
        "token_type": "refresh_token",
        "client_id": tokens["client_id"],
        "sub": "Kühn 7",
    }


def test_inactive_token_has_no_other_members(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    app.refresh()
    used = tokens["refresh_token"]
    current = app.tokens["access_token"]
    assert server.introspect(used, hint="refresh_token").json() == {"active": False}
    app.sign_out()
    for token in (current, app.tokens["refresh_token"], "unknown", "a.b.c", " ", "\u00e4", "x" * 9000):
        response = server.introspect(token, hint="refresh_token")
        assert (response.status_code, response.json()) == (200, {"active": False})


def test_expired_refresh_token_is_inactive(server: Platform, tokens: dict[str, Any]) -> None:
    age_sign_on(172_790)
    assert server.is_active(tokens["refresh_token"])
    age_sign_on(20)
    assert server.introspect(tokens["refresh_token"], hint="refresh_token").json() == {"active": False}


@pytest.mark.parametrize("hint", [None, "access_token", "refresh_token", "REFRESH_TOKEN", "something", ""])
def test_refresh_token_is_active_only_with_its_hint(
    server: Platform, tokens: dict[str, Any], hint: str | None
) -> None:
    assert server.introspect(tokens["access_token"], hint=hint).json()["active"] is True
    body = server.introspect(tokens["refresh_token"], hint=hint).json()
    assert body == {"active": False} if hint != "refresh_token" else body["active"]


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "something"])
def test_revocation_ignores_the_hint(server: Platform, tokens: dict[str, Any], hint: str) -> None:
    form = {"token": tokens["refresh_token"], "token_type_hint": hint}
    assert server.post("/oauth/revoke", form).status_code == 200
    assert not server.is_active(tokens["access_token"])


@pytest.mark.parametrize(("age", "active"), [(-3600, True), (1, False)])
def test_refresh_token_newer_than_the_database_is_active_until_it_expires(
    server: Platform, tokens: dict[str, Any], age: int, active: bool
) -> None:
    payload = decode_claims(tokens["refresh_token"])
    newer = {"jti": payload["jti"].replace(".0", ".3"), "exp": int(time.time()) - age}
    age_sign_on(180_000)

    def is_active(payload: dict[str, Any]) -> Any:
        form = {"token": sign_refresh_claims(payload), "token_type_hint": "refresh_token"}
        return server.post("/oauth/introspect", form).json()["active"]

    assert is_active(payload | newer) is active
    assert is_active(payload | {"exp": newer["exp"]}) is False, "the token of the database has expired"


def test_introspection_needs_one_statement(
    server: Platform, tokens: dict[str, Any], stale_snapshots: None
) -> None:
    server.introspect("x")
    for token, expected in ((tokens["access_token"], 1), (tokens["refresh_token"], 1), ("garbage", 0)):
        with CaptureQueriesContext(connection) as captured:
            assert server.introspect(token, hint="refresh_token").status_code == 200
        assert get_verbs(captured) == ["SELECT"] * expected


def test_revocation_needs_two_statements_and_one_if_it_changes_nothing(
    server: Platform, tokens: dict[str, Any], stale_snapshots: None
) -> None:
    server.introspect("x")
    for token, expected in (
        (tokens["access_token"], ["INSERT", "INSERT"]),
        (tokens["access_token"], ["INSERT"]),
        (tokens["refresh_token"], ["UPDATE", "INSERT"]),
        (tokens["refresh_token"], ["UPDATE"]),
        ("garbage", []),
    ):
        with CaptureQueriesContext(connection) as captured:
            assert server.revoke(token).status_code == 200
        assert get_verbs(captured) == expected


# Revocation


def test_revoking_an_access_token_keeps_the_sign_on(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    for _ in range(2):
        response = server.revoke(tokens["access_token"])
        assert (response.status_code, response.json()) == (200, {})
    assert server.introspect(tokens["access_token"]).json() == {"active": False}
    assert (
        full_response(app.sign_out(tokens["access_token"], x_correlation_id=CORRELATION_ID))
        == NOT_AUTHENTICATED
    )
    assert app.refresh().status_code == 200
    assert server.is_active(app.tokens["access_token"])


def test_revoking_a_refresh_token_ends_the_sign_on(
    server: Platform, app: ClientApp, tokens: dict[str, Any]
) -> None:
    for _ in range(2):
        response = server.revoke(tokens["refresh_token"])
        assert (response.status_code, response.json()) == (200, {})
    for token in ("access_token", "refresh_token"):
        assert server.introspect(tokens[token], hint="refresh_token").json() == {"active": False}
    assert full_response(app.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert Device.objects.for_tenant("nagra").get().end_reason == "revoked"


@pytest.mark.parametrize("token", ["unknown", "a.b.c", "x" * 9000, "\u00e4"])
def test_revoking_an_unknown_token_is_200(server: Platform, token: str) -> None:
    response = server.revoke(token)
    assert (response.status_code, response.json()) == (200, {})


def test_token_of_another_tenant_looks_unknown(
    server: Platform, tokens: dict[str, Any], sunrise: HeadEnd
) -> None:
    sunrise_server = create_platform("sunrise")
    for token in (tokens["access_token"], tokens["refresh_token"]):
        assert full_response(
            sunrise_server.introspect(token, hint="refresh_token", x_correlation_id=CORRELATION_ID)
        ) == full_response(sunrise_server.introspect("unknown", x_correlation_id=CORRELATION_ID))
        assert full_response(sunrise_server.revoke(token, x_correlation_id=CORRELATION_ID)) == full_response(
            sunrise_server.revoke("unknown", x_correlation_id=CORRELATION_ID)
        )
        for name in ("nv_tenant_id", "tenantId"):
            assert not sunrise_server.introspect(token, hint="refresh_token", **{name: "nagra"}).json()[
                "active"
            ]
        assert server.is_active(token)


def test_owner_of_a_token_comes_from_the_database(nagra: HeadEnd, app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get(state="active").delete()
    secret = bytes(range(200, 232))
    key = SigningKey.generate(tenant, state="active", secret=secret)
    key.save()
    resource_server = create_platform("nagra")
    app.sign_on()
    payload = jwt.decode(app.tokens["access_token"], options={"verify_signature": False})
    forged = {**payload, "accountId": "victim", "deviceId": "other", "scope": "admin", "active": False}
    response = resource_server.introspect(jwt.encode(forged, secret, "HS256", {"kid": key.kid})).json()
    assert response["active"] is True
    assert {response[name] for name in ("accountId", "userId", "sub")} == {"account-1"}
    assert response["deviceId"] == response["client_id"] == app.tokens["client_id"]
    assert "scope" not in response
    Device.objects.for_tenant("nagra").update(fixed_expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    without_end = jwt.encode({**payload, "exp": 253402214400}, secret, "HS256", {"kid": key.kid})
    assert not resource_server.is_active(without_end), "no token outlives its sign-on"
