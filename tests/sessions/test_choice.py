"""Choosing between several accounts: `signOn` creates the choice, `subsequentSignOn` redeems it once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.db import OperationalError, connection
from django.db.models import F
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from ags.sessions.exceptions import StaleSnapshot
from ags.sessions.models import Account, AccountChoice, AccountStatus, SecurityEvent, SessionToken
from ags.sessions.services.account_choice import create_choice
from ags.sessions.services.devices import NewDevice
from ags.sessions.services.revoke import revoke_issued
from ags.sessions.tokens.opaque import USER_ACCOUNT_TOKEN, hash_token, token_hashes
from providers import contract
from providers.contract import Choice, FailureReason, VerificationFailed
from tenants import snapshot as tenants_snapshot
from tenants.models import Key, KeyState, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.database import database_now, database_unavailable, get_verbs
from tests.support.operators import add_trial_service, create_operator
from tests.support.responses import (
    ACCOUNT_CANCELLED,
    ACCOUNT_SUSPENDED,
    CORRELATION_ID,
    DEVICE_DISABLED,
    DEVICE_LIMIT_REACHED,
    DEVICE_UNKNOWN,
    INVALID_BODIES,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    error_response,
    full_response,
)
from tests.support.sign_ons import DEVICE_INFORMATION, get_devices, get_events, update_row

pytestmark = pytest.mark.usefixtures("trial")


def choose(app: ClientApp, user_token: str | None, body: Any = None, **headers: str | None) -> Any:
    """Redeem a choice with a fixed correlation ID."""
    return app.choose_account(user_token, body, **{"x_correlation_id": CORRELATION_ID, **headers})


def stored() -> list[AccountChoice]:
    return list(AccountChoice.objects.for_tenant("nagra").order_by("pk"))


def is_open() -> bool:
    (row,) = stored()
    return row.used_at is None


# Creating a choice


def test_several_accounts_are_answered_with_300_and_register_no_device(app: ClientApp) -> None:
    answer = app.sign_on_directly("a-1,Kühn 7")
    assert answer.status_code == 300
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Location" not in answer.headers
    accounts = answer.json()["accounts"]
    assert [set(account) for account in accounts] == [{"accountInformation", "userAccountToken"}] * 2
    assert [account["accountInformation"] for account in accounts] == ["Account a-1", "Account Kühn 7"]
    tokens = [account["userAccountToken"] for account in accounts]
    assert all(re.fullmatch(r"[a-z2-7]{26}\.[01]", token) for token in tokens)
    assert len(set(tokens)) == 2
    assert get_devices() == []
    assert not Account.unscoped.exists()
    assert not SessionToken.unscoped.exists()


def test_the_row_contains_the_device_and_no_token(app: ClientApp, trial: Service) -> None:
    before = database_now()
    answer = app.sign_on_directly("a-1,a-2", deviceInformation=DEVICE_INFORMATION)
    token = answer.json()["accounts"][0]["userAccountToken"]
    row = AccountChoice.objects.for_tenant("nagra").get()
    assert (row.service_id, row.key_id, row.used_at) == (trial.pk, None, None)
    assert (row.accounts, row.information, row.client_id) == (["a-1", "a-2"], DEVICE_INFORMATION, None)
    assert row.correlation_id == answer.headers["x-correlation-id"]
    assert before <= row.created_at <= database_now()
    # SQLite counts milliseconds.
    assert abs(row.expires_at - row.created_at - timedelta(minutes=10)) <= timedelta(milliseconds=2)
    secret = token.partition(".")[0]
    assert bytes(row.token_hash) == hash_token(secret, USER_ACCOUNT_TOKEN) != hash_token(secret)
    assert secret not in repr(AccountChoice.unscoped.values().get())


def test_each_of_the_maximum_number_of_accounts_can_be_chosen(app: ClientApp) -> None:
    names = [f"a{number}" for number in range(contract.MAX_ACCOUNTS)]
    for index in (0, 9, 10, len(names) - 1):
        tokens = app.request_choices(",".join(names))
        assert len(tokens) == len(names)
        assert choose(app, tokens[index]).json()["accountId"] == names[index]


# Redeeming a choice


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_requesting_device_signs_on_to_the_chosen_account(app: ClientApp, index: int) -> None:
    tokens = app.request_choices("a-1,Kühn 7,a-3", deviceInformation=DEVICE_INFORMATION)
    answer = choose(app, tokens[index])
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    (device,), (row,) = get_devices(), stored()
    body = answer.json()
    assert (body["client_id"], body["accountId"]) == (device.client_id, ["a-1", "Kühn 7", "a-3"][index])
    assert set(body) == set(app.sign_on().json()), "the same members as after signOnWithSessionToken"
    assert (device.account.account_id, device.information) == (body["accountId"], DEVICE_INFORMATION)
    assert (device.service.name, device.key_id, device.correlation_id) == (TRIAL, None, CORRELATION_ID)
    assert device.proven_at == row.created_at <= row.used_at <= device.signed_on_at
    assert app.refresh(body["refresh_token"]).status_code == 200


def test_a_known_device_keeps_its_client_id(app: ClientApp) -> None:
    client_id = app.sign_on_directly("a-2").json()["client_id"]
    _, token = app.request_choices("a-1,a-2", clientId=client_id)
    assert stored()[0].client_id == client_id
    answer = choose(app, token)
    assert (answer.status_code, answer.json()["client_id"]) == (201, client_id)
    assert len(get_devices()) == 1


VALID_BODIES: dict[str, Any] = {
    "none": None,
    "empty": b"",
    "a space": b" ",
    "an empty object": {},
    "no parameters": {"parameters": []},
    "the parameters of signOn": {"parameters": [{"name": "Username", "value": "x"}], "version": "3.1"},
    "another device": {"clientId": "x", "deviceInformation": 1},
}


@pytest.mark.parametrize("body", VALID_BODIES.values(), ids=VALID_BODIES)
def test_members_of_the_body_are_ignored(app: ClientApp, body: Any) -> None:
    token, _ = app.request_choices("a-1,a-2", deviceInformation=DEVICE_INFORMATION)
    assert choose(app, token, body).status_code == 201
    assert get_devices()[0].information == DEVICE_INFORMATION


def test_an_empty_body_can_have_any_content_type(app: ClientApp) -> None:
    token, _ = app.request_choices()
    assert choose(app, token, b"", content_type="text/plain").status_code == 201


# Invalid requests


ACCEPTED_BODIES = (
    "no parameters",
    "nothing",
    "nothing but a space",
    "a parameter missing",
    "an unknown parameter",
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [case for name, case in INVALID_BODIES.items() if name not in ACCEPTED_BODIES],
    ids=[name for name in INVALID_BODIES if name not in ACCEPTED_BODIES],
)
def test_an_invalid_body_is_rejected(app: ClientApp, body: Any, expected: dict[str, Any]) -> None:
    token, _ = app.request_choices()
    answer = choose(app, token, body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 400
    assert full_response(answer) == expected
    assert is_open()


INVALID_HEADERS: dict[str, tuple[dict[str, str | None], int, str]] = {
    "no tenant": ({"nv_tenant_id": None}, 400, "header_missing"),
    "no service": ({"x_auth_service_id": None}, 400, "header_missing"),
    "no user token": ({"user_token": None}, 400, "header_missing"),
    "an empty user token": ({"user_token": ""}, 400, "header_missing"),
    "two user tokens": ({"user_token": "a,b"}, 400, "header_repeated"),
    "another type": ({"content_type": "text/plain"}, 415, "unsupported_media_type"),
    "compressed": ({"content_encoding": "gzip"}, 415, "unsupported_media_type"),
}


@pytest.mark.parametrize(("headers", "status", "reason"), INVALID_HEADERS.values(), ids=INVALID_HEADERS)
def test_the_database_is_not_read_before_headers_and_body_are_valid(
    app: ClientApp, headers: dict[str, str | None], status: int, reason: str
) -> None:
    snapshot.__init__()  # type: ignore[misc] # a process that has seen no tenant
    good = {"x_auth_service_id": TRIAL, "user_token": "a" * 26 + ".0"}
    with CaptureQueriesContext(connection) as captured:
        answer = app.call("/ags/subsequentSignOn", {}, **{**good, **headers})
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert list(captured) == []
    with CaptureQueriesContext(connection) as captured:
        assert app.call("/ags/subsequentSignOn", {}, **good).status_code == 401
    assert list(captured) != [], "only the change is rejected"


def test_the_error_names_the_missing_header(app: ClientApp) -> None:
    missing = error_response(400, 40001, "header_missing", "The header User-Token is missing.")
    assert full_response(choose(app, None)) == missing


# Invalid tokens


def redeemed(app: ClientApp, token: str) -> str:
    assert app.choose_account(token).status_code == 201
    return token


def redeemed_for_another_account(app: ClientApp, token: str) -> str:
    assert app.choose_account(token).status_code == 201
    return token[:-1] + "1"


def expired(app: ClientApp, token: str) -> str:
    update_row(AccountChoice, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    return token


def revoked_by_account(app: ClientApp, token: str) -> str:
    revoke_issued(Account.objects.for_tenant("nagra").create(tenant_id="nagra", account_id="account-1"))
    return token


def revoked_by_service(app: ClientApp, token: str) -> str:
    revoke_issued(Service.objects.for_tenant("nagra").get(name=TRIAL))
    return token


def revoked_by_tenant(app: ClientApp, token: str) -> str:
    revoke_issued(Tenant.objects.get(pk="nagra"))
    return token


def of_another_service(app: ClientApp, token: str) -> str:
    AccountChoice.unscoped.update(service=Service.objects.for_tenant("nagra").get(name=SERVICE))
    return token


def of_another_tenant(app: ClientApp, token: str) -> str:
    create_operator("sunrise", bytes(range(101, 133)))
    add_trial_service("sunrise")
    theirs: str = ClientApp(HeadEnd("sunrise", "", b"")).request_choices()[0]
    return theirs


def a_session_token(app: ClientApp, token: str) -> str:
    body = {"parameters": [{"name": "Account", "value": "account-1"}]}
    answer = app.head_end.post(body, x_auth_service_id=TRIAL)
    return f"{answer.json()['sessionToken']}.0"


def a_session_token_under_the_hash_of_a_choice(app: ClientApp, token: str) -> str:
    """As if both kinds of tokens were hashed for the same purpose."""
    secret = a_session_token(app, token)
    update_row(AccountChoice, token_hash=hash_token(secret[:26]))
    return secret


INVALID_TOKENS: dict[str, tuple[Callable[[ClientApp, str], str], str]] = {
    "unknown": (lambda app, token: "a" * 26 + ".0", "token_unknown"),
    "without an index": (lambda app, token: token[:-2], "token_malformed"),
    "of an index past the end": (lambda app, token: token[:-1] + "2", "token_unknown"),
    "of an index far past the end": (lambda app, token: token[:-1] + "99", "token_unknown"),
    "of an index that is too long": (lambda app, token: token + "00", "token_malformed"),
    "of a negative index": (lambda app, token: token[:-1] + "-1", "token_malformed"),
    "of an index with a leading zero": (lambda app, token: token[:-1] + "00", "token_malformed"),
    "of an index in other digits": (lambda app, token: token[:-1] + "\u0661", "token_malformed"),
    "in capital letters": (lambda app, token: token.upper(), "token_malformed"),
    "with a space": (lambda app, token: token[:-2] + " " + token[-2:], "token_malformed"),
    "an injection": (lambda app, token: "' OR 1=1 --", "token_malformed"),
    "very long": (lambda app, token: "a" * 5000, "token_malformed"),
    "expired": (expired, "token_expired"),
    "used": (redeemed, "token_spent"),
    "used for another account": (redeemed_for_another_account, "token_spent"),
    "revoked with the account": (revoked_by_account, "revoked"),
    "revoked with the service": (revoked_by_service, "revoked"),
    "revoked with the tenant": (revoked_by_tenant, "revoked"),
    "of another service": (of_another_service, "token_unknown"),
    "of another tenant": (of_another_tenant, "token_unknown"),
    "a session token": (a_session_token, "token_unknown"),
    "a session token, hashed alike": (a_session_token_under_the_hash_of_a_choice, "token_unknown"),
}


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("invalidate", "reason"), INVALID_TOKENS.values(), ids=INVALID_TOKENS)
def test_every_invalid_token_gets_the_same_response_and_its_reason_is_logged(
    app: ClientApp,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    invalidate: Callable[[ClientApp, str], str],
    reason: str,
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    token = invalidate(app, app.request_choices()[0])
    before = len(get_devices())
    caplog.clear()
    caplog.set_level("INFO")
    assert full_response(choose(app, token)) == NOT_AUTHENTICATED
    assert [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"] == [reason]
    assert len(get_devices()) == before
    used = {"user_account_token_reused"} if reason == "token_spent" else set()
    assert {kind for kind, *_ in get_events()} == used


def test_a_user_account_token_is_not_accepted_as_another_token(app: ClientApp) -> None:
    token, _ = app.request_choices()
    for presented in (token, token[:26]):
        body = {"parameters": [{"name": "sessionToken", "value": presented}], "deviceInformation": {}}
        answer = app.call(
            "/ags/signOnWithSessionToken", body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID
        )
        assert full_response(answer) == NOT_AUTHENTICATED
    for bearer in (token, token[:26]):
        assert app.refresh(bearer).status_code == app.sign_out(bearer).status_code == 401
    assert is_open()
    assert choose(app, token).status_code == 201


def test_a_choice_expires_by_the_databases_clock(app: ClientApp) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=5), tick=True):
        assert choose(app, app.request_choices()[0]).status_code == 201, "the clock of the database is right"
    AccountChoice.unscoped.all().delete()
    token = app.request_choices()[0]
    update_row(AccountChoice, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=5), tick=True):
        assert full_response(choose(app, token)) == NOT_AUTHENTICATED


def test_repeated_choices_are_counted_in_one_security_event(app: ClientApp) -> None:
    tokens = app.request_choices("Kühn 7,a-2")
    first = choose(app, tokens[0]).json()
    assert get_events() == []
    for token in (tokens[0], tokens[1], tokens[0]):
        assert full_response(choose(app, token)) == NOT_AUTHENTICATED
    (event,), (row,) = SecurityEvent.objects.for_tenant("nagra"), stored()
    assert (event.kind, event.subject) == ("user_account_token_reused", str(row.pk))
    assert (event.account_id, event.times, event.correlation_id) == ("Kühn 7", 3, CORRELATION_ID)
    assert row.used_at <= event.first_at <= event.latest_at
    app.tokens = first
    assert app.refresh().status_code == 200, "the first sign-on stays valid"


def test_a_choice_is_found_under_every_encryption_key(app: ClientApp, settings: Any) -> None:
    old, new = settings.AGS_ENCRYPTION_KEYS[0], bytes(range(100, 132))
    token, _ = app.request_choices()
    snapshot.invalidate("nagra")
    settings.AGS_ENCRYPTION_KEYS = (new, old)
    assert bytes(stored()[0].token_hash) == token_hashes(token[:26], USER_ACCOUNT_TOKEN)[1]
    assert choose(app, token).status_code == 201


# Rejections that leave the choice open


def suspended(app: ClientApp) -> Callable[[], None]:
    update_row(Account, status=AccountStatus.SUSPENDED)
    return lambda: update_row(Account, status=AccountStatus.ACTIVE)


def cancelled(app: ClientApp) -> Callable[[], None]:
    update_row(Account, status=AccountStatus.CANCELLED)
    return lambda: update_row(Account, status=AccountStatus.ACTIVE)


def full(app: ClientApp) -> Callable[[], None]:
    update_row(Tenant, device_limit=1)
    return lambda: update_row(Tenant, device_limit=None)


def change_trial(enabled: bool) -> None:
    Service.objects.for_tenant("nagra").filter(name=TRIAL).update(enabled=enabled)


def no_service(app: ClientApp) -> Callable[[], None]:
    change_trial(enabled=False)
    return lambda: change_trial(enabled=True)


def no_tenant(app: ClientApp) -> Callable[[], None]:
    update_row(Tenant, enabled=False)
    return lambda: update_row(Tenant, enabled=True)


def device_of_status(status: str) -> Callable[[ClientApp], Callable[[], None]]:
    def reject(app: ClientApp) -> Callable[[], None]:
        row = get_devices()[0]
        row.status = status
        row.save()

        def undo() -> None:
            row.status = "enabled"
            row.save()

        return undo

    return reject


REJECTIONS: dict[str, tuple[Callable[[ClientApp], Callable[[], None]], dict[str, Any], bool]] = {
    "cancelled": (cancelled, ACCOUNT_CANCELLED, False),
    "cancelled, known device": (cancelled, ACCOUNT_CANCELLED, True),
    "suspended": (suspended, ACCOUNT_SUSPENDED, False),
    "suspended, known device": (suspended, ACCOUNT_SUSPENDED, True),
    "the service is disabled": (no_service, SERVICE_NOT_AVAILABLE, False),
    "the tenant is disabled": (no_tenant, SERVICE_NOT_AVAILABLE, False),
    "as many devices as allowed": (full, DEVICE_LIMIT_REACHED, False),
    "the device is deleted": (device_of_status("deleted"), DEVICE_UNKNOWN, True),
    "the device is disabled": (device_of_status("disabled"), DEVICE_DISABLED, True),
}


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "expected", "later"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_leaves_the_choice_open(
    app: ClientApp,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[ClientApp], Callable[[], None]],
    expected: dict[str, Any],
    later: bool,
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    known = app.sign_on_directly("account-1").json()["client_id"]
    tokens = app.request_choices(**({"clientId": known} if later else {}))
    undo = reject(app)
    before = [(device.sign_on, device.signed_on_at) for device in get_devices()]
    for _ in range(2):
        assert full_response(choose(app, tokens[0])) == expected
    assert [(device.sign_on, device.signed_on_at) for device in get_devices()] == before
    assert is_open()
    undo()
    snapshot.invalidate("nagra")
    answer = choose(app, tokens[0])
    assert answer.status_code == 201
    assert (answer.json()["client_id"] == known) == later
    assert get_events() == [], "a rejection is not a reuse"


def test_after_a_rejected_account_another_can_be_chosen(app: ClientApp) -> None:
    Account(tenant_id="nagra", account_id="a-1", status=AccountStatus.SUSPENDED).save()
    tokens = app.request_choices("a-1,a-2")
    assert full_response(choose(app, tokens[0])) == ACCOUNT_SUSPENDED
    assert choose(app, tokens[1]).json()["accountId"] == "a-2"


def test_a_device_of_another_account_of_the_choice_is_unknown(app: ClientApp) -> None:
    client_id = app.sign_on_directly("a-2").json()["client_id"]
    tokens = app.request_choices("a-1,a-2", clientId=client_id)
    assert full_response(choose(app, tokens[0])) == DEVICE_UNKNOWN
    assert choose(app, tokens[1]).status_code == 201


def test_a_service_without_the_endpoint_is_not_available(app: ClientApp) -> None:
    assert full_response(choose(app, "a" * 26 + ".0", x_auth_service_id=SERVICE)) == SERVICE_NOT_AVAILABLE


# Choices of services with keys


def create_choice_with_key() -> str:
    """Return a token of a choice with a key, as of a provider that verifies signatures."""
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    accounts = contract.Account("a-1", "First"), contract.Account("a-2", "Second")
    choice = Choice(accounts, Key.objects.for_tenant("nagra").get().pk)
    stored = async_to_sync(create_choice)(
        tenant, tenant.services[TRIAL], choice, NewDevice({}), CORRELATION_ID
    )
    return stored[0]


def revoke_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()


def test_a_choice_is_invalid_when_its_key_is_revoked(
    app: ClientApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert choose(app, create_choice_with_key()).status_code == 201
    assert get_devices()[0].key == Key.objects.for_tenant("nagra").get()
    token = create_choice_with_key()
    revoke_key()
    assert full_response(choose(app, token)) == NOT_AUTHENTICATED
    reasons = [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"]
    assert reasons[-1] == "key_not_in_force"


def test_a_key_that_was_just_revoked_creates_no_choice(app: ClientApp, stale_snapshots: None) -> None:
    app.head_end.discover()
    Key.objects.for_tenant("nagra").update(not_after=Now())
    with pytest.raises(VerificationFailed) as rejected:
        create_choice_with_key()
    assert rejected.value.reason is FailureReason.KEY_NOT_IN_FORCE
    Key.objects.for_tenant("nagra").update(not_after=None)
    revoke_key()
    with pytest.raises(StaleSnapshot):
        create_choice_with_key()
    assert stored() == []


# SQL statements


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("later", "expected"),
    [(False, ["UPDATE", "INSERT", "INSERT"]), (True, ["UPDATE", "UPDATE"])],
    ids=["first", "later"],
)
def test_a_warm_choice_needs_one_statement_and_redeeming_it_at_most_three(
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
        assert full_response(choose(app, token)) == UNAVAILABLE
    assert choose(app, token).status_code == 201


def test_without_a_signing_key_the_choice_stays_open(app: ClientApp) -> None:
    token, _ = app.request_choices()
    key = SigningKey.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()
    snapshot.invalidate("nagra")
    assert full_response(choose(app, token)) == UNAVAILABLE
    assert is_open()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "fails",
    [
        "UPDATE ags_sessions_accountchoice",
        "INSERT INTO ags_sessions_account ",
        "INSERT INTO ags_sessions_device",
    ],
)
def test_a_database_error_leaves_the_choice_open(app: ClientApp, fails: str) -> None:
    token, _ = app.request_choices()

    def failing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith(fails):
            raise OperationalError("server closed the connection")
        return execute(sql, *rest)

    with connection.execute_wrapper(failing):
        assert full_response(choose(app, token)) == UNAVAILABLE
    assert is_open()
    assert get_devices() == []
    assert choose(app, token).status_code == 201


def test_an_unavailable_database_is_a_503(app: ClientApp) -> None:
    token, _ = app.request_choices()
    with database_unavailable():
        assert full_response(choose(app, token)) == UNAVAILABLE
    assert choose(app, token).status_code == 201
