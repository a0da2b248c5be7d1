"""Revocation of tokens, sign-ons, devices, accounts, keys, services and tenants."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ValidationError
from django.db.models.functions import Now

from ags.sessions.models import Account, Device, SessionToken
from ags.sessions.services.revoke import end_sign_on
from tenants import rotation
from tenants import snapshot as tenants_snapshot
from tenants.models import Key, Service, SigningKey, Tenant
from tenants.revocation import revoke_issued
from tests.support.audit_trail import request_context
from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.database import wait_for_clock_tick
from tests.support.operators import add_key, create_platform
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response
from tests.support.sign_ons import get_events, redeem_token, update_row


@dataclass
class IssuedTokens:
    """An unredeemed session token and the tokens of a sign-on."""

    app: ClientApp
    account: str
    platform: Platform
    session_token: str = ""

    def obtain(self) -> None:
        assert self.app.sign_on(self.account).status_code == 201
        self.session_token = self.app.session_token(self.account)

    def check_all(self) -> dict[str, bool]:
        """Return which uses succeed. Signing out comes last, because it ends the sign-on."""
        access, refresh = self.app.tokens["access_token"], self.app.tokens["refresh_token"]
        return {
            "access token, introspected": self.platform.is_active(access),
            "refresh token, introspected": self.platform.is_active(refresh),
            "refresh": self.app.refresh(refresh).status_code == 200,
            "session token": redeem_token(self.app, self.session_token).status_code == 201,
            "sign-out": self.app.sign_out(access).status_code == 200,
        }


ALL = {
    "access token, introspected",
    "refresh token, introspected",
    "refresh",
    "session token",
    "sign-out",
}
ACCESS = {"access token, introspected", "sign-out"}
SIGN_ON = ALL - {"session token"}


def device_of(issued: IssuedTokens) -> Device:
    return Device.objects.for_tenant("nagra").get(client_id=issued.app.tokens["client_id"])


def revoke_refresh_token(issued: IssuedTokens) -> None:
    assert issued.platform.revoke(issued.app.tokens["refresh_token"]).status_code == 200


def revoke_access_token(issued: IssuedTokens) -> None:
    assert issued.platform.revoke(issued.app.tokens["access_token"]).status_code == 200


def revoke_session_token(issued: IssuedTokens) -> None:
    SessionToken.objects.for_tenant("nagra").filter(redeemed_at=None, account_id=issued.account).update(
        revoked_at=Now()
    )


def revoke_sign_on(issued: IssuedTokens) -> None:
    assert async_to_sync(end_sign_on)("nagra", device_of(issued).sign_on, "revoked", request_context())


def delete_device(issued: IssuedTokens) -> None:
    row = device_of(issued)
    row.status = "deleted"
    row.save()


def revoke_account(issued: IssuedTokens) -> None:
    revoke_issued(Account.objects.for_tenant("nagra").get(account_id=issued.account))


def revoke_key(issued: IssuedTokens) -> None:
    revoke_issued(Key.objects.for_tenant("nagra").get(kid=issued.app.head_end.kid))


def revoke_service(issued: IssuedTokens) -> None:
    revoke_issued(Service.objects.for_tenant("nagra").get())


def revoke_tenant(issued: IssuedTokens) -> None:
    revoke_issued(Tenant.objects.get(pk="nagra"))


# The operation, the uses of the target that it invalidates, and the other clients that lose everything.
REVOCATIONS: dict[str, tuple[Callable[[IssuedTokens], None], set[str], set[str]]] = {
    "an access token": (revoke_access_token, ACCESS, set()),
    "a refresh token": (revoke_refresh_token, SIGN_ON, set()),
    "a session token": (revoke_session_token, {"session token"}, set()),
    "a sign-on": (revoke_sign_on, SIGN_ON, set()),
    "a device": (delete_device, SIGN_ON, set()),
    "an account": (revoke_account, ALL, {"another device"}),
    "a key": (revoke_key, ALL, {"another device", "another account"}),
    "a service": (revoke_service, ALL, {"another device", "another account", "another key"}),
    "a tenant": (revoke_tenant, ALL, {"another device", "another account", "another key"}),
}


@pytest.fixture
def clients(nagra: HeadEnd, sunrise: HeadEnd) -> dict[str, IssuedTokens]:
    """The target, and one client that differs from it at each level."""
    second = HeadEnd("nagra", "second", bytes(range(60, 100)))
    add_key(second)
    ours, theirs = create_platform("nagra"), create_platform("sunrise")
    clients = {
        "target": IssuedTokens(ClientApp(nagra), "account-1", ours),
        "another device": IssuedTokens(ClientApp(nagra), "account-1", ours),
        "another account": IssuedTokens(ClientApp(nagra), "account-2", ours),
        "another key": IssuedTokens(ClientApp(second), "account-3", ours),
        "another tenant": IssuedTokens(ClientApp(sunrise), "account-1", theirs),
    }
    for issued in clients.values():
        issued.obtain()
    wait_for_clock_tick()
    return clients


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("revoke", "invalidated", "also_revoked"), REVOCATIONS.values(), ids=REVOCATIONS)
def test_a_revocation_invalidates_everything_issued_before_it_and_nothing_else(
    clients: dict[str, IssuedTokens],
    monkeypatch: pytest.MonkeyPatch,
    revoke: Callable[[IssuedTokens], None],
    invalidated: set[str],
    also_revoked: set[str],
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    target = clients.pop("target")
    if revoke is revoke_session_token:  # the other device has a session token of the same account
        clients.pop("another device")
    revoke(target)
    wait_for_clock_tick()
    accepted = {name for name, is_accepted in target.check_all().items() if is_accepted}
    assert accepted == ALL - invalidated
    for name, issued in clients.items():
        assert set(issued.check_all().values()) == {name not in also_revoked}, name
    assert get_events("nagra") == [], "use of a revoked token is not a sign of theft"
    # Tokens issued after the revocation are valid.
    for issued in (target, *clients.values()):
        issued.obtain()
        assert set(issued.check_all().values()) == {True}


CASCADING = {name: REVOCATIONS[name][0] for name in ("an account", "a key", "a service", "a tenant")}


@pytest.mark.parametrize("revoke", CASCADING.values(), ids=CASCADING)
def test_the_time_of_the_proof_decides_if_a_sign_on_is_revoked(
    clients: dict[str, IssuedTokens], revoke: Callable[[IssuedTokens], None]
) -> None:
    """A revocation also applies to a proof from before it that is redeemed or refreshed later."""
    target = clients["target"]
    assert target.app.redeem(target.session_token).status_code == 201
    target.app.refresh()
    revoke(target)
    wait_for_clock_tick()
    assert full_response(target.app.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert full_response(target.app.sign_out(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    target.obtain()
    assert target.app.refresh().status_code == 200


@pytest.mark.parametrize("older", CASCADING.values(), ids=CASCADING)
@pytest.mark.parametrize("newer", CASCADING.values(), ids=CASCADING)
def test_the_latest_revocation_applies(
    clients: dict[str, IssuedTokens],
    older: Callable[[IssuedTokens], None],
    newer: Callable[[IssuedTokens], None],
) -> None:
    target = clients["target"]
    older(target)
    wait_for_clock_tick()
    target.obtain()
    wait_for_clock_tick()
    newer(target)
    assert set(target.check_all().values()) == {False}


def test_a_later_revocation_with_an_outdated_row_uses_the_current_time(
    clients: dict[str, IssuedTokens],
) -> None:
    """The second revocation uses a row that was read before the first one."""
    rows = [Key.objects.for_tenant("nagra").get(kid="nagra-key-1") for _ in range(2)]
    revoke_issued(rows[0])
    wait_for_clock_tick()
    revoke_issued(rows[1])
    first, second = rows[0].revoked_before, rows[1].revoked_before
    assert first is not None
    assert second is not None
    assert first < second
    assert Key.unscoped.get(pk=rows[0].pk).revoked_before == rows[1].revoked_before


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
def test_a_revoked_key_leaves_sign_ons_valid_until_everything_it_issued_is_revoked(
    clients: dict[str, IssuedTokens], monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    """Key rotation signs nobody out, but session tokens of the key are rejected immediately."""
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    target = clients["target"]
    row = Key.objects.for_tenant("nagra").get(kid="nagra-key-1")
    row.state = "revoked"
    row.save()
    assert full_response(redeem_token(target.app, target.session_token)) == NOT_AUTHENTICATED
    assert target.app.refresh().status_code == 200
    revoke_issued(row)
    assert full_response(target.app.refresh(x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert set(clients["another key"].check_all().values()) == {True}


# Disabling and enabling


SWITCHES: dict[str, tuple[Any, str, Any, Any]] = {
    "the tenant": (Tenant, "enabled", False, True),
    "the service": (Service, "enabled", False, True),
    "the account": (Account, "status", "suspended", "active"),
    "the device": (Device, "status", "disabled", "enabled"),
}


@pytest.mark.parametrize(("model", "name", "off", "on"), SWITCHES.values(), ids=SWITCHES)
def test_a_token_is_inactive_while_one_of_its_rows_is_disabled(
    app: ClientApp, stale_snapshots: None, model: Any, name: str, off: Any, on: Any
) -> None:
    resource_server = create_platform("nagra")
    app.sign_on()
    for value in (off, on):
        update_row(model, **{name: value})
        for token in ("access_token", "refresh_token"):
            assert resource_server.is_active(app.tokens[token]) == (value == on)
    update_row(model, **{name: off})
    assert app.sign_out().status_code in (401, 403)
    update_row(model, **{name: on})
    assert not resource_server.is_active(app.tokens["access_token"]), (
        "the sign-out applies although it was rejected"
    )


# Revocations are permanent


@pytest.mark.parametrize("model", [Tenant, Service, Key])
def test_saving_an_outdated_row_does_not_undo_a_revocation(app: ClientApp, model: Any) -> None:
    app.sign_on()
    rows = model.objects if model is Tenant else model.unscoped
    read_before = rows.get()
    revoke_issued(rows.get())
    with pytest.raises(ValidationError, match="Changed by a command at "):
        read_before.save()
    assert rows.get().revoked_before is not None
    assert app.refresh().status_code == 401


def test_saving_one_field_of_an_outdated_row_does_not_enable_a_tenant(app: ClientApp) -> None:
    read_before, restricted = Tenant.objects.get(pk="nagra"), Tenant.objects.get(pk="nagra")
    Tenant.objects.get(pk="nagra").save_restriction(enabled=False)
    read_before.name = "Another"
    read_before.save(update_fields=["name"])
    restricted.save_restriction(name="A third")
    tenant = Tenant.objects.get(pk="nagra")
    assert (tenant.name, tenant.enabled) == ("A third", False)


def test_a_revocation_does_not_validate_the_row(app: ClientApp) -> None:
    app.sign_on()
    Service.objects.for_tenant("nagra").update(settings={"no": "such setting"})
    key = Key.objects.for_tenant("nagra").get()
    Key.objects.for_tenant("nagra").update(state="revoked", algorithm="XS256")
    revoke_issued(Service.objects.for_tenant("nagra").get())
    revoke_issued(key)
    for row in (Service.objects.for_tenant("nagra").get(), Key.objects.for_tenant("nagra").get()):
        assert row.revoked_before is not None
    assert Key.objects.for_tenant("nagra").get().state == "revoked"


def test_tokens_of_a_key_that_was_removed_from_the_database_are_invalid(app: ClientApp) -> None:
    app.sign_on()
    token = app.session_token()
    Key.unscoped.filter(tenant="nagra")._raw_delete("default")
    assert app.redeem(token).status_code == 401
    assert app.refresh().status_code == 401


def test_a_revoked_signing_key_cannot_be_changed(app: ClientApp) -> None:
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    read_before = SigningKey.objects.for_tenant("nagra").get(state="active")
    rotation.revoke(key)
    all_changes: list[dict[str, Any]] = [
        {"state": "active"},
        {"state": "retiring"},
        {"kid": "changed"},
        {"public_jwk": {}},
    ]
    for changes in all_changes:
        row = SigningKey.objects.for_tenant("nagra").get(pk=read_before.pk)
        for name, value in changes.items():
            setattr(row, name, value)
        with pytest.raises(ValidationError):
            row.save()
