"""The statements of a redemption: their number, concurrent changes, and errors of the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, AccountStatus
from tenants.models import KeyState, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_unavailable, get_verbs
from tests.support.responses import ACCOUNT_SUSPENDED, UNAVAILABLE, full_response
from tests.support.sign_ons import get_devices, get_events, redeem_token, update_row

# SQL statements


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("later", "expected"),
    [(False, ["UPDATE", "INSERT", "INSERT"]), (True, ["UPDATE", "UPDATE"])],
    ids=["first", "later"],
)
def test_a_warm_sign_on_needs_at_most_three_statements_in_one_transaction(
    app: ClientApp, stale_snapshots: None, later: bool, expected: list[str]
) -> None:
    app.sign_on()
    token = app.session_token()
    members = {"clientId": app.tokens["client_id"]} if later else {}
    with CaptureQueriesContext(connection) as captured:
        assert app.redeem(token, **members).status_code == 201
    assert get_verbs(captured) == expected
    assert len(captured) <= len(expected) + 2, "one BEGIN, one COMMIT"


@pytest.mark.parametrize("later", [False, True])
def test_a_request_is_retried_after_a_change_of_the_tenant(
    app: ClientApp, stale_snapshots: None, later: bool
) -> None:
    app.sign_on()
    token = app.session_token()
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answer = app.redeem(token, **({"clientId": app.tokens["client_id"]} if later else {}))
    assert (answer.status_code, answer.json()["expires_in"]) == (201, 77)
    assert get_events() == []


@pytest.mark.parametrize("later", [False, True])
def test_constant_configuration_changes_are_a_503_and_redeem_nothing(app: ClientApp, later: bool) -> None:
    app.sign_on()
    token = app.session_token()
    members = {"clientId": app.tokens["client_id"]} if later else {}

    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_sessiontoken"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(redeem_token(app, token, **members)) == UNAVAILABLE
    assert app.redeem(token, **members).status_code == 201


@pytest.mark.parametrize(
    ("second", "later"), [("INSERT INTO ags_sessions_account", False), ("UPDATE ags_sessions_device", True)]
)
def test_an_account_that_is_suspended_between_two_statements_is_rejected(
    app: ClientApp, second: str, later: bool
) -> None:
    app.sign_on()
    token = app.session_token()
    members = {"clientId": app.tokens["client_id"]} if later else {}

    def suspending(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(second):
            update_row(Account, status=AccountStatus.SUSPENDED)
        return execute(sql, *rest)

    with connection.execute_wrapper(suspending):
        assert full_response(redeem_token(app, token, **members)) == ACCOUNT_SUSPENDED
    update_row(Account, status=AccountStatus.ACTIVE)
    assert redeem_token(app, token, **members).status_code == 201


def test_without_a_signing_key_nothing_is_redeemed(nagra: HeadEnd, app: ClientApp) -> None:
    token = app.session_token()
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    key.state = KeyState.REVOKED
    key.save()
    assert full_response(redeem_token(app, token)) == UNAVAILABLE
    SigningKey.generate(Tenant.objects.get(pk="nagra"), state="active").save()
    snapshot.invalidate("nagra")
    assert app.redeem(token).status_code == 201


def test_without_a_decryptable_signing_key_nothing_is_redeemed(
    app: ClientApp, caplog: pytest.LogCaptureFixture
) -> None:
    token = app.session_token()
    active = SigningKey.unscoped.filter(state="active")
    sealed = active.get().sealed_secret
    active.update(sealed_secret=b"\x01" + bytes(60))
    snapshot.invalidate("nagra")
    assert full_response(redeem_token(app, token)) == UNAVAILABLE
    assert "signing key cannot be decrypted" in caplog.messages
    active.update(sealed_secret=sealed)
    snapshot.invalidate("nagra")
    assert app.redeem(token).status_code == 201


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fails", "later"),
    [
        ("UPDATE ags_sessions_sessiontoken", False),
        ("INSERT INTO ags_sessions_account", False),
        ("INSERT INTO ags_sessions_device", False),
        ("UPDATE ags_sessions_device", True),
    ],
)
def test_a_database_error_redeems_nothing(app: ClientApp, fails: str, later: bool) -> None:
    app.sign_on()
    before = get_devices()
    token = app.session_token()
    members = {"clientId": app.tokens["client_id"]} if later else {}

    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(fails):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(redeem_token(app, token, **members)) == UNAVAILABLE
    assert [device.sign_on for device in get_devices()] == [device.sign_on for device in before]
    assert app.refresh().status_code == 200, "the earlier sign-on is not changed"
    assert redeem_token(app, token, **members).status_code == 201


def test_an_unavailable_database_is_a_503(app: ClientApp) -> None:
    token = app.session_token()
    with database_unavailable():
        assert full_response(redeem_token(app, token)) == UNAVAILABLE
    assert app.redeem(token).status_code == 201
