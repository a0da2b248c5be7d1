"""Signing out, and revoking one access token."""

from __future__ import annotations

import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Device, RevokedAccessToken
from tests.support.clients import ClientApp
from tests.support.database import get_verbs
from tests.support.operators import create_operator, create_platform
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, SERVICE_NOT_AVAILABLE, full_response
from tests.support.sign_ons import decode_claims, get_events, sign_with_tenant_key

# Signing out


@pytest.mark.parametrize("form", ["Bearer {}", "{}", "bearer {}", "BEARER  {}"])
def test_signing_out_ends_the_sign_on(app: ClientApp, form: str) -> None:
    app.sign_on()
    answer = app.sign_out(authorization=form.format(app.tokens["access_token"]))
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["Cache-Control"] == "no-store"
    row = Device.objects.for_tenant("nagra").get()
    assert (row.ended_at is not None, row.end_reason, row.status) == (True, "signed_out", "enabled")
    assert full_response(app.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert full_response(app.sign_out(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED, "twice"
    assert not create_platform("nagra").is_active(app.tokens["access_token"])
    assert Device.objects.for_tenant("nagra").get().ended_at == row.ended_at
    assert get_events() == []


def test_signing_out_ends_only_one_sign_on(app: ClientApp) -> None:
    first, second = app.sign_on().json(), app.sign_on().json()
    assert app.sign_out(first["access_token"]).status_code == 200
    assert app.refresh(first["refresh_token"]).status_code == 401
    assert app.refresh(second["refresh_token"]).status_code == 200


def test_an_older_access_token_can_sign_out(app: ClientApp) -> None:
    older = app.sign_on().json()["access_token"]
    app.refresh()
    assert app.sign_out(older).status_code == 200
    assert app.refresh().status_code == 401


def test_an_expired_access_token_cannot_sign_out(app: ClientApp) -> None:
    app.sign_on()
    payload = decode_claims(app.tokens["access_token"])
    expired = sign_with_tenant_key(payload | {"exp": int(time.time()) - 1})
    assert full_response(app.sign_out(expired, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert app.sign_out(sign_with_tenant_key(payload)).status_code == 200, "only exp was invalid"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": None},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic {}"},
        {"authorization": "{} {}"},
    ],
)
def test_signing_out_requires_a_token(app: ClientApp, headers: dict[str, str | None]) -> None:
    access = app.sign_on().json()["access_token"]
    filled = {name: value and value.replace("{}", access) for name, value in headers.items()}
    assert full_response(app.sign_out(**{"x_correlation_id": CORRELATION_ID, **filled})) == NOT_AUTHENTICATED
    assert app.refresh().status_code == 200


def test_signing_out_requires_a_service_of_the_tenant(app: ClientApp) -> None:
    app.sign_on()
    answer = app.sign_out(x_auth_service_id="unknown", x_correlation_id=CORRELATION_ID)
    assert full_response(answer) == SERVICE_NOT_AVAILABLE
    assert app.sign_out(x_auth_service_id=None).status_code == 400
    assert app.refresh().status_code == 200


def test_signing_out_needs_three_statements(app: ClientApp, stale_snapshots: None) -> None:
    app.sign_on()
    with CaptureQueriesContext(connection) as captured:
        assert app.sign_out().status_code == 200
    assert get_verbs(captured) == ["SELECT", "UPDATE", "INSERT"], "the last stores the event"
    with CaptureQueriesContext(connection) as captured:
        assert app.sign_out().status_code == 401
    assert get_verbs(captured) == ["SELECT", "UPDATE"], "nothing ends"


# Revoking one access token


def test_the_revocation_of_an_access_token_is_kept_until_it_expires(app: ClientApp) -> None:
    resource_server = create_platform("nagra")
    app.sign_on()
    payload = decode_claims(app.tokens["access_token"])
    for _ in range(2):
        assert resource_server.revoke(app.tokens["access_token"]).status_code == 200
    (row,) = RevokedAccessToken.objects.for_tenant("nagra")
    assert row.jti == payload["jti"]
    assert row.expires_at.timestamp() == pytest.approx(payload["exp"], abs=0.01)
    assert row.revoked_at < row.expires_at
    app.refresh()
    assert resource_server.is_active(app.tokens["access_token"]), "the next access token is not revoked"


def test_a_tenant_cannot_revoke_tokens_of_another(app: ClientApp) -> None:
    sunrise = create_operator("sunrise", bytes(range(101, 133)))
    theirs = create_platform("sunrise")
    ours = create_platform("nagra")
    app.sign_on()
    for token in ("access_token", "refresh_token"):
        assert theirs.revoke(app.tokens[token]).status_code == 200
        assert not theirs.is_active(app.tokens[token])
        assert ours.is_active(app.tokens[token])
    assert sunrise.tenant_id == "sunrise"
    assert not RevokedAccessToken.unscoped.exists()
