"""Rejected choices: invalid user account tokens, and rejections that leave the choice open."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from asgiref.sync import async_to_sync
from django.db.models.functions import Now

from ags.sessions.exceptions import StaleSnapshot
from ags.sessions.models import Account, AccountChoice, AccountStatus, SecurityEvent
from ags.sessions.services.account_choice import create_choice
from ags.sessions.services.devices import NewDevice
from ags.sessions.tokens.opaque import USER_ACCOUNT_TOKEN, token_hashes
from providers import contract
from providers.contract import Choice, FailureReason, VerificationFailed
from tenants import snapshot as tenants_snapshot
from tenants.models import Key, KeyState, Service, Tenant
from tenants.revocation import revoke_issued
from tenants.snapshot import snapshot
from tests.support.audit_trail import request_context
from tests.support.choices import get_choices, is_choice_open, redeem_choice
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.operators import add_trial_service, create_operator
from tests.support.rejections import reject_and_accept
from tests.support.responses import (
    ACCOUNT_CANCELLED,
    ACCOUNT_SUSPENDED,
    CORRELATION_ID,
    DEVICE_DISABLED,
    DEVICE_LIMIT_REACHED,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    full_response,
)
from tests.support.sign_ons import get_devices, get_events, update_row

pytestmark = pytest.mark.usefixtures("trial")


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
    update_row(AccountChoice, token_hash=token_hashes(secret[:26])[0])
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
    assert full_response(redeem_choice(app, token)) == NOT_AUTHENTICATED
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
    assert is_choice_open()
    assert redeem_choice(app, token).status_code == 201


def test_a_choice_expires_by_the_databases_clock(app: ClientApp) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=5), tick=True):
        assert redeem_choice(app, app.request_choices()[0]).status_code == 201, (
            "the clock of the database is right"
        )
    AccountChoice.unscoped.all().delete()
    token = app.request_choices()[0]
    update_row(AccountChoice, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=5), tick=True):
        assert full_response(redeem_choice(app, token)) == NOT_AUTHENTICATED


def test_repeated_choices_are_counted_in_one_security_event(app: ClientApp) -> None:
    tokens = app.request_choices("Kühn 7,a-2")
    first = redeem_choice(app, tokens[0]).json()
    assert get_events() == []
    for token in (tokens[0], tokens[1], tokens[0]):
        assert full_response(redeem_choice(app, token)) == NOT_AUTHENTICATED
    (event,), (row,) = SecurityEvent.objects.for_tenant("nagra"), get_choices()
    assert (event.kind, event.subject) == ("user_account_token_reused", str(row.pk))
    assert (event.account_id, event.times, event.correlation_id) == ("Kühn 7", 3, CORRELATION_ID)
    assert row.used_at is not None
    assert row.used_at <= event.first_at <= event.latest_at
    app.tokens = first
    assert app.refresh().status_code == 200, "the first sign-on stays valid"


def test_a_choice_is_found_under_every_encryption_key(app: ClientApp, settings: Any) -> None:
    old, new = settings.AGS_ENCRYPTION_KEYS[0], bytes(range(100, 132))
    token, _ = app.request_choices()
    snapshot.invalidate("nagra")
    settings.AGS_ENCRYPTION_KEYS = (new, old)
    assert bytes(get_choices()[0].token_hash) == token_hashes(token[:26], USER_ACCOUNT_TOKEN)[1]
    assert redeem_choice(app, token).status_code == 201


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
    client_id = reject_and_accept(lambda: redeem_choice(app, tokens[0]), undo, expected, is_choice_open)
    assert (client_id == known) == later
    assert get_events() == [], "a rejection is not a reuse"


def test_after_a_rejected_account_another_can_be_chosen(app: ClientApp) -> None:
    Account(tenant_id="nagra", account_id="a-1", status=AccountStatus.SUSPENDED).save()
    tokens = app.request_choices("a-1,a-2")
    assert full_response(redeem_choice(app, tokens[0])) == ACCOUNT_SUSPENDED
    assert redeem_choice(app, tokens[1]).json()["accountId"] == "a-2"


def test_a_device_of_another_account_of_the_choice_is_unknown(app: ClientApp) -> None:
    client_id = app.sign_on_directly("a-2").json()["client_id"]
    tokens = app.request_choices("a-1,a-2", clientId=client_id)
    assert full_response(redeem_choice(app, tokens[0])) == DEVICE_UNKNOWN
    assert redeem_choice(app, tokens[1]).status_code == 201


def test_a_service_without_the_endpoint_is_not_available(app: ClientApp) -> None:
    assert (
        full_response(redeem_choice(app, "a" * 26 + ".0", x_auth_service_id=SERVICE)) == SERVICE_NOT_AVAILABLE
    )


# Choices of services with keys


def create_choice_with_key() -> str:
    """Return a token of a choice with a key, as of a provider that verifies signatures."""
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    accounts = contract.Account("a-1", "First"), contract.Account("a-2", "Second")
    choice = Choice(accounts, Key.objects.for_tenant("nagra").get().pk)
    tokens = async_to_sync(create_choice)(
        tenant, tenant.services[TRIAL], choice, NewDevice({}), request_context()
    )
    return tokens[0]


def revoke_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()


def test_a_choice_is_invalid_when_its_key_is_revoked(
    app: ClientApp, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert redeem_choice(app, create_choice_with_key()).status_code == 201
    assert get_devices()[0].key == Key.objects.for_tenant("nagra").get()
    token = create_choice_with_key()
    revoke_key()
    assert full_response(redeem_choice(app, token)) == NOT_AUTHENTICATED
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
    assert get_choices() == []
