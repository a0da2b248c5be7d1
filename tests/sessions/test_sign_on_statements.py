"""The statements of a direct sign-on: their number, concurrent changes, and errors of the database."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, AccountStatus
from tenants.models import KeyState, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.database import database_unavailable, get_verbs
from tests.support.direct_sign_ons import get_session_tokens, sign_on_directly, sign_on_with_operator_token
from tests.support.responses import ACCOUNT_SUSPENDED, UNAVAILABLE, full_response
from tests.support.sign_ons import get_devices, update_row
from tests.support.waiting import PATIENCE

# SQL statements


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("later", "expected"),
    [(False, ["INSERT", "INSERT", "INSERT"]), (True, ["INSERT", "UPDATE"])],
    ids=["first", "later"],
)
def test_a_warm_sign_on_needs_at_most_three_statements_in_one_transaction(
    app: ClientApp,
    trial: Service,
    stale_snapshots: None,
    verify_calls: list[bool],
    later: bool,
    expected: list[str],
) -> None:
    app.sign_on_directly("account-1")
    members = {"clientId": app.tokens["client_id"]} if later else {}
    with CaptureQueriesContext(connection) as captured:
        assert app.sign_on_directly("account-1", **members).status_code == 201
    assert get_verbs(captured) == expected
    assert len(captured) <= len(expected) + 2, "one BEGIN, one COMMIT"
    assert verify_calls == [True, True], "one call for each sign-on, outside of a transaction"


@pytest.mark.django_db(transaction=True)
def test_a_warm_rejection_needs_no_statement(
    app: ClientApp, trial: Service, stale_snapshots: None, verify_calls: list[bool]
) -> None:
    app.sign_on_directly("account-1")
    with CaptureQueriesContext(connection) as captured:
        assert [app.sign_on_directly(account).status_code for account in ("nobody", "away")] == [401, 503]
    assert list(captured) == []
    assert verify_calls == [True] * 3


def test_a_request_is_retried_after_a_change_of_the_tenant(
    app: ClientApp, trial: Service, stale_snapshots: None, verify_calls: list[bool]
) -> None:
    app.sign_on_directly("account-1")
    tenant = Tenant.objects.get(pk="nagra")
    tenant.access_token_ttl = 77
    tenant.save()
    answer = app.sign_on_directly("account-1")
    assert (answer.status_code, answer.json()["expires_in"]) == (201, 77)
    assert len(verify_calls) == 2, "the proof is not verified again"


@pytest.mark.parametrize("accounts", ["account-1", "account-1,account-2"])
def test_constant_configuration_changes_are_a_503_and_store_nothing(
    app: ClientApp, trial: Service, verify_calls: list[bool], accounts: str
) -> None:
    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(("INSERT INTO ags_sessions_sessiontoken", "INSERT INTO ags_sessions_acc")):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(sign_on_directly(app, accounts)) == UNAVAILABLE
    assert len(verify_calls) == 1, "the proof is verified once"
    assert (get_session_tokens(), get_devices()) == ([], [])
    assert sign_on_directly(app, accounts).status_code in (201, 300)


def test_an_account_that_is_suspended_during_the_sign_on_is_rejected(app: ClientApp, trial: Service) -> None:
    app.sign_on_directly("account-1")
    rows = len(get_session_tokens())

    def suspending(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("INSERT INTO ags_sessions_account "):
            update_row(Account, status=AccountStatus.SUSPENDED)
        return execute(sql, *rest)

    with connection.execute_wrapper(suspending):
        assert full_response(sign_on_directly(app)) == ACCOUNT_SUSPENDED
    assert len(get_session_tokens()) == rows


@pytest.mark.parametrize("accounts", ["account-1", "account-1,account-2"])
def test_without_a_signing_key_the_proof_is_not_verified(
    app: ClientApp, trial: Service, verify_calls: list[bool], accounts: str
) -> None:
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(sign_on_directly(app, accounts)) == UNAVAILABLE
    assert verify_calls == []
    assert get_session_tokens() == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("fails", "later"),
    [
        ("INSERT INTO ags_sessions_sessiontoken", False),
        ("INSERT INTO ags_sessions_account", False),
        ("INSERT INTO ags_sessions_device", False),
        ("UPDATE ags_sessions_device", True),
    ],
)
def test_a_database_error_does_not_use_up_the_proof(
    app: ClientApp, sign_on_with_token: None, fails: str, later: bool
) -> None:
    app.sign_on()
    proof, rows = app.head_end.token(jti="once"), len(get_session_tokens())
    members = {"clientId": app.tokens["client_id"]} if later else {}

    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(fails):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(sign_on_with_operator_token(app, proof, **members)) == UNAVAILABLE
    assert (len(get_session_tokens()), len(get_devices())) == (rows, 1)
    assert app.refresh().status_code == 200, "the earlier sign-on is not changed"
    assert sign_on_with_operator_token(app, proof, **members).status_code == 201


def test_an_unavailable_database_is_a_503(app: ClientApp, trial: Service) -> None:
    with database_unavailable():
        assert full_response(sign_on_directly(app)) == UNAVAILABLE
    assert sign_on_directly(app).status_code == 201


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limit", [None, 0], ids=["no limit", "limit of 0"])
def test_one_of_8_devices_with_the_same_proof_signs_on(
    app: ClientApp, sign_on_with_token: None, limit: int | None
) -> None:
    """A proof that waits for another transaction is rejected as a replay only if that one commits."""
    update_row(Tenant, device_limit=limit)
    ready = threading.Barrier(8)

    def go(proof: str) -> int:
        mine = ClientApp(replace(app.head_end, client=Client()))
        try:
            ready.wait(PATIENCE)
            status: int = sign_on_with_operator_token(mine, proof).status_code
            return status
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            proof = app.head_end.token(jti=f"once {number}", OpfAccountId=f"account-{number}")
            expected = {201: 1, 401: 7} if limit is None else {403: 8}
            assert Counter(pool.map(go, [proof] * 8)) == expected
    assert len(get_devices()) == len(get_session_tokens()) == (10 if limit is None else 0)
