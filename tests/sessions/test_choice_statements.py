"""The statements of a choice: their number, concurrent changes, and errors of the database."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from tenants.models import KeyState, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.choices import is_choice_open, redeem_choice
from tests.support.clients import ClientApp
from tests.support.database import database_unavailable, get_verbs
from tests.support.responses import UNAVAILABLE, full_response
from tests.support.sign_ons import get_devices, get_events

pytestmark = pytest.mark.usefixtures("trial")


# SQL statements


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("later", "expected"),
    [(False, ["UPDATE", "INSERT", "INSERT", "INSERT"]), (True, ["UPDATE", "UPDATE", "INSERT"])],
    ids=["first", "later"],
)
def test_a_warm_choice_needs_one_statement_and_redeeming_it_at_most_four(
    app: ClientApp, stale_snapshots: None, later: bool, expected: list[str]
) -> None:
    app.sign_on_directly("account-1")
    members = {"clientId": app.tokens["client_id"]} if later else {}
    with CaptureQueriesContext(connection) as captured:
        token, _ = app.request_choices(**members)
    assert [query["sql"].split()[0] for query in captured] == ["INSERT"], "without a transaction"
    with CaptureQueriesContext(connection) as captured:
        assert app.choose_account(token).status_code == 201
    assert get_verbs(captured) == expected
    assert len(captured) <= len(expected) + 2, "one BEGIN, one COMMIT"


@pytest.mark.parametrize("when", ["before create", "before redeem"])
def test_a_request_is_retried_after_a_change_of_the_tenant(
    app: ClientApp, stale_snapshots: None, when: str
) -> None:
    app.sign_on_directly("account-1")
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    if when == "before create":
        tenant.save()
    token, _ = app.request_choices()
    if when == "before redeem":
        tenant.save()
    answer = app.choose_account(token)
    assert (answer.status_code, answer.json()["expires_in"]) == (201, 77)
    assert get_events() == []


def test_constant_configuration_changes_are_a_503_and_leave_the_choice_open(app: ClientApp) -> None:
    token, _ = app.request_choices()

    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("UPDATE ags_sessions_accountchoice"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(redeem_choice(app, token)) == UNAVAILABLE
    assert redeem_choice(app, token).status_code == 201


def test_without_a_signing_key_the_choice_stays_open(app: ClientApp) -> None:
    token, _ = app.request_choices()
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(redeem_choice(app, token)) == UNAVAILABLE
    assert is_choice_open()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "fails",
    [
        "UPDATE ags_sessions_accountchoice",
        "INSERT INTO ags_sessions_account ",
        "INSERT INTO ags_sessions_device",
        "INSERT INTO ags_sessions_event",
    ],
)
def test_a_database_error_leaves_the_choice_open(app: ClientApp, fails: str) -> None:
    token, _ = app.request_choices()

    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(fails):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(redeem_choice(app, token)) == UNAVAILABLE
    assert is_choice_open()
    assert get_devices() == []
    assert redeem_choice(app, token).status_code == 201


def test_an_unavailable_database_is_a_503(app: ClientApp) -> None:
    token, _ = app.request_choices()
    with database_unavailable():
        assert full_response(redeem_choice(app, token)) == UNAVAILABLE
    assert redeem_choice(app, token).status_code == 201
