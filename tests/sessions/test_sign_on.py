"""Signing on with a proof: a device signs on, and a rejection stores nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django import forms
from django.db import OperationalError, connection
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, AccountChoice, AccountStatus, SessionToken
from ags.sessions.services.revoke import revoke_issued
from providers.contract import Endpoint, KeyRing
from providers.dummy.strategy import Dummy
from providers.operator_token.strategy import OperatorToken
from tenants import snapshot as tenants_snapshot
from tenants.models import KeyState, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.database import database_unavailable, get_verbs
from tests.support.rejections import AMBIGUOUS_DEVICES, CONFIGURATION_CHANGES, REJECTIONS
from tests.support.responses import (
    ACCOUNT_SUSPENDED,
    CORRELATION_ID,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    SIGN_ON_MALFORMED,
    UNAVAILABLE,
    error_response,
    full_response,
)
from tests.support.sign_ons import DEVICE_INFORMATION, get_devices, get_events, update_row
from tests.support.waiting import PATIENCE

AMBIGUOUS = error_response(
    403,
    40303,
    "account_ambiguous",
    "The credentials match more than one account; this endpoint cannot choose between them.",
)


def prove(app: ClientApp, account: str = "account-1", **members: Any) -> Any:
    """Sign on with the trial service and a fixed correlation ID."""
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "Account", "value": account}], **device}
    return app.call("/ags/signOn", body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID)


def present(app: ClientApp, token: str, **members: Any) -> Any:
    """Sign on with an OperatorAuthToken."""
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "OperatorAuthToken", "value": token}], **device}
    return app.call("/ags/signOn", body, x_correlation_id=CORRELATION_ID)


def stored() -> list[SessionToken]:
    return list(SessionToken.objects.for_tenant("nagra").order_by("pk"))


@pytest.fixture
def sign_on_with_token(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let signed proofs with a jti sign devices on."""
    monkeypatch.setattr(OperatorToken, "endpoints", (*OperatorToken.endpoints, Endpoint.SIGNON))


@pytest.fixture
def verify_calls(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """One item for each call of `Dummy.verify`: True if no transaction was open."""
    calls: list[bool] = []
    verify = Dummy.verify

    def record_call(
        self: Dummy, parameters: Mapping[str, str], settings: Mapping[str, Any], keys: KeyRing
    ) -> Any:
        calls.append(not connection.in_atomic_block)
        return verify(self, parameters, settings, keys)

    monkeypatch.setattr(Dummy, "verify", record_call)
    return calls


# The response and the rows


def test_a_first_sign_on_registers_a_device_and_a_later_one_reuses_it(app: ClientApp, trial: Service) -> None:
    answer = app.sign_on_directly("Kühn 7", deviceInformation=DEVICE_INFORMATION)
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    (device,) = get_devices()
    first = answer.json()
    assert (first["client_id"], first["accountId"]) == (device.client_id, "Kühn 7")
    assert set(first) == set(app.sign_on().json()), "the same members as after signOnWithSessionToken"
    assert (device.information, device.service_id) == (DEVICE_INFORMATION, trial.pk)
    later = app.sign_on_directly("Kühn 7", clientId=device.client_id)
    assert (later.status_code, later.json()["client_id"]) == (201, device.client_id)
    assert app.refresh(first["refresh_token"]).status_code == 401, "a device has one sign-on"
    assert app.refresh().status_code == 200
    assert app.sign_out(x_auth_service_id=TRIAL).status_code == 200


def test_the_proof_is_stored_as_a_redeemed_session_token(app: ClientApp, trial: Service) -> None:
    answer = prove(app, "Kühn 7")
    (row,), (device,) = stored(), get_devices()
    assert (row.account_id, row.service_id, row.key_id, row.jti) == ("Kühn 7", trial.pk, None, None)
    assert row.correlation_id == device.correlation_id == CORRELATION_ID
    assert row.created_at == row.redeemed_at == row.expires_at == row.dead_after
    assert device.proven_at == row.created_at <= device.signed_on_at
    assert set(answer.json()) == {
        *("access_token", "refresh_token", "token_type", "client_id", "accountId"),
        *("expires_in", "refresh_expires_in", "fixed_refresh_expires_in"),
    }


def test_a_service_without_session_token_ttl_can_sign_devices_on(
    app: ClientApp, trial: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Settings(forms.Form):
        """Without `session_token_ttl`."""

        refused_account = unavailable_account = passphrase = forms.CharField(required=False)

    monkeypatch.setattr(Dummy, "Settings", Settings)
    monkeypatch.setattr(Dummy, "endpoints", (Endpoint.SIGNON, Endpoint.SIGNOUT))
    Service.objects.for_tenant("nagra").filter(pk=trial.pk).update(settings={})
    snapshot.invalidate("nagra")
    assert app.sign_on_directly("account-1").status_code == 201
    assert app.sign_out(x_auth_service_id=TRIAL).status_code == 200


@pytest.mark.parametrize(
    ("changed", "times"), [({"name": "Another name"}, 1), ({"settings": {"refused_account": "x"}}, 2)]
)
def test_the_proof_is_verified_again_only_after_a_change_of_the_service(
    app: ClientApp, trial: Service, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], times: int
) -> None:
    """An upstream could count a second verification as another failed login."""
    accounts: list[str] = []
    real = Dummy.verify

    def verify(self: Dummy, parameters: Any, *others: Any) -> Any:
        accounts.append(parameters["Account"])
        if len(accounts) == 1:
            row = Tenant.objects.get(pk="nagra") if "name" in changed else Service.unscoped.get(pk=trial.pk)
            for name, value in changed.items():
                setattr(row, name, value)
            row.save()
        return real(self, parameters, *others)

    monkeypatch.setattr(Dummy, "verify", verify)
    monkeypatch.setattr(Dummy, "blocking", True)
    assert app.sign_on_directly("account-1").status_code == 201
    assert len(accounts) == times


def test_a_sign_on_is_revoked_with_its_service_tenant_or_account(app: ClientApp, trial: Service) -> None:
    for row in (trial, Tenant.objects.get(pk="nagra"), None):
        assert app.sign_on_directly("account-1").status_code == 201
        assert app.refresh().status_code == 200
        revoke_issued(row or Account.objects.for_tenant("nagra").get())
        assert app.refresh().status_code == 401
    snapshot.invalidate("nagra")
    assert app.sign_on_directly("account-1").status_code == 201, "a later proof is accepted"


# Invalid requests


@pytest.mark.parametrize("members", AMBIGUOUS_DEVICES.values(), ids=AMBIGUOUS_DEVICES)
def test_exactly_one_of_device_information_and_client_id_is_required(
    app: ClientApp, trial: Service, verify_calls: list[bool], members: dict[str, Any]
) -> None:
    body = {"parameters": [{"name": "Account", "value": "account-1"}], **members}
    answer = app.call("/ags/signOn", body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID)
    assert full_response(answer) == SIGN_ON_MALFORMED
    assert verify_calls == []


PARAMETERS: dict[str, tuple[Any, str]] = {
    "none": ([], "parameter_missing"),
    "not there": (None, "parameters_malformed"),
    "an unknown one": ([{"name": "sessionToken", "value": "x"}], "parameter_unknown"),
    "too long": ([{"name": "Account", "value": "x" * 256}], "parameter_invalid"),
    "a number": ([{"name": "Account", "value": 1}], "parameter_invalid"),
    "twice": ([{"name": name, "value": "x"} for name in ("Account", "account")], "parameter_repeated"),
}


@pytest.mark.parametrize(("parameters", "reason"), PARAMETERS.values(), ids=PARAMETERS)
def test_only_the_parameters_of_the_service_are_accepted(
    app: ClientApp, trial: Service, verify_calls: list[bool], parameters: Any, reason: str
) -> None:
    body = {"parameters": parameters, "deviceInformation": {}}
    answer = app.call("/ags/signOn", body, x_auth_service_id=TRIAL)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)
    assert verify_calls == []
    good = {"parameters": [{"name": "ACCOUNT", "value": "x"}], "deviceInformation": {}, "version": "3.1"}
    assert app.call("/ags/signOn", good, x_auth_service_id=TRIAL).status_code == 201


INVALID_REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no tenant": ({}, {"nv_tenant_id": None}),
    "no service": ({}, {"x_auth_service_id": None}),
    "two services": ({}, {"x_auth_service_id": "a,b"}),
    "another type": ({}, {"content_type": "text/plain"}),
    "compressed": ({}, {"content_encoding": "gzip"}),
    "no parameters": ({"parameters": None}, {}),
    "no device": ({"deviceInformation": None}, {}),
    "two devices": ({"clientId": "x"}, {}),
    "a device too large": ({"deviceInformation": {"x": "x" * 70_000}}, {}),
}


@pytest.mark.parametrize(("members", "headers"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_the_database_is_not_read_before_headers_and_body_are_valid(
    app: ClientApp, trial: Service, members: dict[str, Any], headers: dict[str, Any]
) -> None:
    snapshot.__init__()  # type: ignore[misc] # a process that has seen no tenant
    good: dict[str, Any] = {"parameters": [{"name": "Account", "value": "x"}], "deviceInformation": {}}
    with CaptureQueriesContext(connection) as captured:
        answer = app.call("/ags/signOn", good | members, **{"x_auth_service_id": TRIAL, **headers})
    assert answer.status_code in (400, 413, 415)
    assert list(captured) == []
    with CaptureQueriesContext(connection) as captured:
        assert app.call("/ags/signOn", good, x_auth_service_id=TRIAL).status_code == 201
    assert list(captured) != [], "only the change is rejected"


# Rejections


def test_an_invalid_proof_is_a_401_and_stores_nothing(app: ClientApp, trial: Service) -> None:
    for account in ("nobody", "", "a-1,nobody", ",", "a-1,", "a-1,a-1", ",".join(map(str, range(51)))):
        assert full_response(prove(app, account)) == NOT_AUTHENTICATED, account
    assert (stored(), get_devices()) == ([], [])
    assert not AccountChoice.unscoped.exists()
    assert not Account.unscoped.exists()


def test_an_unavailable_upstream_is_a_503_with_retry_after(
    app: ClientApp, trial: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert full_response(prove(app, "away")) == UNAVAILABLE
    assert UNAVAILABLE["Retry-After"] == "1"
    assert [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"] == [
        "upstream_away"
    ]
    body = {"parameters": [{"name": "Account", "value": "away"}]}
    assert (
        full_response(app.head_end.post(body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID))
        == UNAVAILABLE
    )
    assert stored() == []


def test_a_service_without_the_endpoint_is_not_available(app: ClientApp) -> None:
    assert full_response(present(app, app.head_end.token())) == SERVICE_NOT_AVAILABLE
    assert stored() == []


def test_several_accounts_are_rejected_if_none_can_be_chosen(
    app: ClientApp, trial: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"parameters": [{"name": "Account", "value": "a-1,a-2"}]}
    assert (
        full_response(app.head_end.post(body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID))
        == AMBIGUOUS
    )
    monkeypatch.setattr(Dummy, "endpoints", (Endpoint.SIGNON,))
    assert full_response(prove(app, "a-1,a-2")) == AMBIGUOUS
    assert (stored(), get_devices()) == ([], [])
    assert not AccountChoice.unscoped.exists()


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "expected", "later"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_does_not_use_up_the_proof(
    app: ClientApp,
    sign_on_with_token: None,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[ClientApp], Callable[[], None]],
    expected: dict[str, Any],
    later: bool,
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    app.head_end.discover()
    proof = app.head_end.token(jti="once")
    undo = reject(app)
    known = app.tokens.get("client_id")
    members = {"clientId": known} if later else {}
    before = [(device.sign_on, device.signed_on_at) for device in get_devices()]
    rows = len(stored())
    for _ in range(2):
        assert full_response(present(app, proof, **members)) == expected
    assert [(device.sign_on, device.signed_on_at) for device in get_devices()] == before
    assert len(stored()) == rows
    undo()
    snapshot.invalidate("nagra")
    answer = present(app, proof, **members)
    assert answer.status_code == 201
    assert (answer.json()["client_id"] == known) == later
    again = present(app, proof, **members)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    assert app.head_end.present(proof).json()["reason"] == "replayed", (
        "a jti is accepted once by both endpoints"
    )
    assert get_events() == []


def test_a_proof_cannot_be_used_for_a_session_token_and_a_sign_on(
    app: ClientApp, sign_on_with_token: None
) -> None:
    proof = app.head_end.token(jti="once")
    assert app.head_end.present(proof).status_code == 200
    assert present(app, proof).json()["reason"] == "replayed"
    assert get_devices() == []


@pytest.mark.parametrize(("disable", "answer"), CONFIGURATION_CHANGES)
def test_revoked_or_disabled_configuration_signs_no_device_on_immediately(
    app: ClientApp,
    sign_on_with_token: None,
    stale_snapshots: None,
    disable: Callable[[], None],
    answer: dict[str, Any],
) -> None:
    app.head_end.discover()
    disable()
    for _ in range(2):
        assert full_response(present(app, app.head_end.token(jti="once"))) == answer
    assert (stored(), get_devices()) == ([], [])


def test_a_device_of_another_account_is_unknown(app: ClientApp, trial: Service) -> None:
    other = app.sign_on_directly("another account").json()["client_id"]
    app.sign_on_directly("account-1")
    for client_id in (other, "nothing", "x" * 128):
        assert full_response(prove(app, clientId=client_id)) == DEVICE_UNKNOWN


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
        assert full_response(prove(app, accounts)) == UNAVAILABLE
    assert len(verify_calls) == 1, "the proof is verified once"
    assert (stored(), get_devices()) == ([], [])
    assert prove(app, accounts).status_code in (201, 300)


def test_an_account_that_is_suspended_during_the_sign_on_is_rejected(app: ClientApp, trial: Service) -> None:
    app.sign_on_directly("account-1")
    rows = len(stored())

    def suspending(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("INSERT INTO ags_sessions_account "):
            update_row(Account, status=AccountStatus.SUSPENDED)
        return execute(sql, *rest)

    with connection.execute_wrapper(suspending):
        assert full_response(prove(app)) == ACCOUNT_SUSPENDED
    assert len(stored()) == rows


@pytest.mark.parametrize("accounts", ["account-1", "account-1,account-2"])
def test_without_a_signing_key_the_proof_is_not_verified(
    app: ClientApp, trial: Service, verify_calls: list[bool], accounts: str
) -> None:
    key = SigningKey.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(prove(app, accounts)) == UNAVAILABLE
    assert verify_calls == []
    assert stored() == []


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
    proof, rows = app.head_end.token(jti="once"), len(stored())
    members = {"clientId": app.tokens["client_id"]} if later else {}

    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(fails):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(present(app, proof, **members)) == UNAVAILABLE
    assert (len(stored()), len(get_devices())) == (rows, 1)
    assert app.refresh().status_code == 200, "the earlier sign-on is not changed"
    assert present(app, proof, **members).status_code == 201


def test_an_unavailable_database_is_a_503(app: ClientApp, trial: Service) -> None:
    with database_unavailable():
        assert full_response(prove(app)) == UNAVAILABLE
    assert prove(app).status_code == 201


def test_discovery_lists_the_sign_on_endpoints_and_parameters(app: ClientApp, trial: Service) -> None:
    services = {
        service["authServiceName"]: service for service in app.head_end.discover().json()["availableServices"]
    }
    endpoints = {endpoint["name"]: endpoint for endpoint in services[TRIAL]["endpoints"]}
    assert [endpoints[name]["path"] for name in ("SIGNON", "SUBSEQUENT_SIGNON")] == [
        "/signOn",
        "/subsequentSignOn",
    ]
    assert [parameter["name"] for parameter in endpoints["SIGNON"]["parameterProperties"]] == [
        "Account",
        "Passphrase",
    ]
    assert endpoints["SUBSEQUENT_SIGNON"]["parameterProperties"] == []
    assert not {endpoint["name"] for endpoint in services[SERVICE]["endpoints"]} & {
        "SIGNON",
        "SUBSEQUENT_SIGNON",
    }


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
            status: int = present(mine, proof).status_code
            return status
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(10):
            proof = app.head_end.token(jti=f"once {number}", OpfAccountId=f"account-{number}")
            expected = {201: 1, 401: 7} if limit is None else {403: 8}
            assert Counter(pool.map(go, [proof] * 8)) == expected
    assert len(get_devices()) == len(stored()) == (10 if limit is None else 0)
