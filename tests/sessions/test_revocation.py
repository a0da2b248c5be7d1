"""Revoking: at every level, from the token to the tenant, what was granted dies and all else lives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ValidationError
from django.db import connection
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account, Device, RevokedAccessToken, SessionToken
from ags.sessions.services.revoke import end_sign_on, revoke_issued
from tenants import rotation
from tenants import snapshot as tenants_snapshot
from tenants.models import Key, Service, SigningKey, Tenant
from tests.api.test_refusals import ID, NOT_AVAILABLE, whole
from tests.conftest import ClientApp, HeadEnd, Platform, add_key, operator, platform
from tests.sessions.database_clock import let_clock_move
from tests.sessions.test_redeem import NOT_ACCEPTED, change, events, redeem, verbs
from tests.sessions.test_refresh import by_the_tenants_key, claims


@dataclass
class Held:
    """What somebody holds: a session token that is not redeemed yet, and the tokens of a sign-on."""

    app: ClientApp
    account: str
    platform: Platform
    session_token: str = ""

    def take(self) -> None:
        """Get all of it."""
        assert self.app.sign_on(self.account).status_code == 201
        self.session_token = self.app.session_token(self.account)

    def is_good(self) -> dict[str, bool]:
        """Which of it is good for what. Signing out is tried last, for it ends the sign-on."""
        access, refresh = self.app.tokens["access_token"], self.app.tokens["refresh_token"]
        return {
            "access token, introspected": self.platform.sees(access),
            "refresh token, introspected": self.platform.sees(refresh),
            "refresh": self.app.refresh(refresh).status_code == 200,
            "session token": redeem(self.app, self.session_token).status_code == 201,
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


def held_device(held: Held) -> Device:
    return Device.objects.for_tenant("nagra").get(client_id=held.app.tokens["client_id"])


def by_refresh_token(held: Held) -> None:
    assert held.platform.revoke(held.app.tokens["refresh_token"]).status_code == 200


def by_access_token(held: Held) -> None:
    assert held.platform.revoke(held.app.tokens["access_token"]).status_code == 200


def session_token(held: Held) -> None:
    SessionToken.objects.for_tenant("nagra").filter(redeemed_at=None, account_id=held.account).update(
        revoked_at=Now()
    )


def sign_on(held: Held) -> None:
    assert async_to_sync(end_sign_on)("nagra", held_device(held).sign_on, "revoked")


def device(held: Held) -> None:
    row = held_device(held)
    row.status = "deleted"
    row.save()


def account(held: Held) -> None:
    revoke_issued(Account.objects.for_tenant("nagra").get(account_id=held.account))


def key(held: Held) -> None:
    revoke_issued(Key.objects.for_tenant("nagra").get(kid=held.app.head_end.kid))


def service(held: Held) -> None:
    revoke_issued(Service.objects.for_tenant("nagra").get())


def tenant(held: Held) -> None:
    revoke_issued(Tenant.objects.get(pk="nagra"))


# The cut, what it kills of what he holds, and for whom beside him it kills all.
CUTS: dict[str, tuple[Callable[[Held], None], set[str], set[str]]] = {
    "an access token": (by_access_token, ACCESS, set()),
    "a refresh token": (by_refresh_token, SIGN_ON, set()),
    "a session token": (session_token, {"session token"}, set()),
    "a sign-on": (sign_on, SIGN_ON, set()),
    "a device": (device, SIGN_ON, set()),
    "an account": (account, ALL, {"another device"}),
    "a key": (key, ALL, {"another device", "another account"}),
    "a service": (service, ALL, {"another device", "another account", "another key"}),
    "a tenant": (tenant, ALL, {"another device", "another account", "another key"}),
}


@pytest.fixture
def cast(nagra: HeadEnd, sunrise: HeadEnd) -> dict[str, Held]:
    """Him, and who stands beside him at every level."""
    second = HeadEnd("nagra", "second", bytes(range(60, 100)))
    add_key(second)
    ours, theirs = platform("nagra"), platform("sunrise")
    cast = {
        "he": Held(ClientApp(nagra), "account-1", ours),
        "another device": Held(ClientApp(nagra), "account-1", ours),
        "another account": Held(ClientApp(nagra), "account-2", ours),
        "another key": Held(ClientApp(second), "account-3", ours),
        "another tenant": Held(ClientApp(sunrise), "account-1", theirs),
    }
    for held in cast.values():
        held.take()
    let_clock_move()
    return cast


@pytest.mark.parametrize("stale", [False, True], ids=["noticed", "not noticed"])
@pytest.mark.parametrize(("cut", "dies", "beside"), CUTS.values(), ids=CUTS)
def test_a_cut_kills_what_was_granted_up_to_it_and_nothing_else(
    cast: dict[str, Held],
    monkeypatch: pytest.MonkeyPatch,
    cut: Callable[[Held], None],
    dies: set[str],
    beside: set[str],
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    he = cast.pop("he")
    if cut is session_token:  # his other device holds one of the same account
        cast.pop("another device")
    cut(he)
    let_clock_move()
    good = {name for name, is_good in he.is_good().items() if is_good}
    assert good == ALL - dies
    for name, held in cast.items():
        assert set(held.is_good().values()) == {name not in beside}, name
    assert events("nagra") == [], "what is revoked is not what has been stolen"
    # What is issued after the cut lives.
    for held in (he, *cast.values()):
        held.take()
        assert set(held.is_good().values()) == {True}


CUT_OFFS = {name: CUTS[name][0] for name in ("an account", "a key", "a service", "a tenant")}


@pytest.mark.parametrize("cut", CUT_OFFS.values(), ids=CUT_OFFS)
def test_a_refresh_does_not_make_a_sign_on_younger_than_its_proof(
    cast: dict[str, Held], cut: Callable[[Held], None]
) -> None:
    """The proof is from before the cut; what is redeemed with it after the cut, or refreshed, is dead too."""
    he = cast["he"]
    assert he.app.redeem(he.session_token).status_code == 201
    he.app.refresh()
    cut(he)
    let_clock_move()
    assert whole(he.app.refresh(x_correlation_id=ID)) == NOT_ACCEPTED
    assert whole(he.app.sign_out(x_correlation_id=ID)) == NOT_ACCEPTED
    he.take()
    assert he.app.refresh().status_code == 200


@pytest.mark.parametrize("older", CUT_OFFS.values(), ids=CUT_OFFS)
@pytest.mark.parametrize("newer", CUT_OFFS.values(), ids=CUT_OFFS)
def test_the_newest_cut_off_wins(
    cast: dict[str, Held], older: Callable[[Held], None], newer: Callable[[Held], None]
) -> None:
    he = cast["he"]
    older(he)
    let_clock_move()
    he.take()
    let_clock_move()
    newer(he)
    assert set(he.is_good().values()) == {False}


def test_a_cut_off_never_goes_back(cast: dict[str, Held]) -> None:
    """Somebody who has read the row long ago cuts off now: it is now that counts."""
    rows = [Key.objects.for_tenant("nagra").get(kid="nagra-key-1") for _ in range(2)]
    revoke_issued(rows[0])
    let_clock_move()
    revoke_issued(rows[1])
    assert rows[0].revoked_before < rows[1].revoked_before
    assert Key.unscoped.get(pk=rows[0].pk).revoked_before == rows[1].revoked_before


@pytest.mark.parametrize("stale", [False, True], ids=["noticed", "not noticed"])
def test_a_key_that_is_revoked_leaves_sign_ons_alone_until_what_it_gave_rise_to_is_cut_off(
    cast: dict[str, Held], monkeypatch: pytest.MonkeyPatch, stale: bool
) -> None:
    """Keys are rotated; that signs nobody out. A session token that it proved is refused at once."""
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    he = cast["he"]
    row = Key.objects.for_tenant("nagra").get(kid="nagra-key-1")
    row.state = "revoked"
    row.save()
    assert whole(redeem(he.app, he.session_token)) == NOT_ACCEPTED
    assert he.app.refresh().status_code == 200
    revoke_issued(row)
    assert whole(he.app.refresh(x_correlation_id=ID)) == NOT_ACCEPTED
    assert set(cast["another key"].is_good().values()) == {True}


# What is switched off and on again


SWITCHES: dict[str, tuple[Any, str, Any, Any]] = {
    "the tenant": (Tenant, "enabled", False, True),
    "the service": (Service, "enabled", False, True),
    "the account": (Account, "status", "suspended", "active"),
    "the device": (Device, "status", "disabled", "enabled"),
}


@pytest.mark.parametrize(("model", "name", "off", "on"), SWITCHES.values(), ids=SWITCHES)
def test_a_token_is_inactive_while_what_it_stands_on_is_off(
    app: ClientApp, stays_stale: None, model: Any, name: str, off: Any, on: Any
) -> None:
    resource_server = platform("nagra")
    app.sign_on()
    for value in (off, on):
        change(model, **{name: value})
        for token in ("access_token", "refresh_token"):
            assert resource_server.sees(app.tokens[token]) == (value == on)
    change(model, **{name: off})
    assert app.sign_out().status_code in (401, 403)
    change(model, **{name: on})
    assert not resource_server.sees(app.tokens["access_token"]), "whoever signs out is signed out"


# Signing out


@pytest.mark.parametrize("form", ["Bearer {}", "{}", "bearer {}", "BEARER  {}"])
def test_signing_out_ends_the_sign_on(app: ClientApp, form: str) -> None:
    app.sign_on()
    answer = app.sign_out(authorization=form.format(app.tokens["access_token"]))
    assert (answer.status_code, answer.json()) == (200, {})
    assert answer.headers["Cache-Control"] == "no-store"
    row = Device.objects.for_tenant("nagra").get()
    assert (row.ended_at is not None, row.end_reason, row.status) == (True, "signed_out", "enabled")
    assert whole(app.refresh(x_correlation_id=ID)) == NOT_ACCEPTED
    assert whole(app.sign_out(x_correlation_id=ID)) == NOT_ACCEPTED, "twice"
    assert not platform("nagra").sees(app.tokens["access_token"])
    assert Device.objects.for_tenant("nagra").get().ended_at == row.ended_at
    assert events() == []


def test_signing_out_ends_one_sign_on_and_no_other(app: ClientApp) -> None:
    first, second = app.sign_on().json(), app.sign_on().json()
    assert app.sign_out(first["access_token"]).status_code == 200
    assert app.refresh(first["refresh_token"]).status_code == 401
    assert app.refresh(second["refresh_token"]).status_code == 200


def test_an_older_access_token_of_the_sign_on_signs_out_too(app: ClientApp) -> None:
    older = app.sign_on().json()["access_token"]
    app.refresh()
    assert app.sign_out(older).status_code == 200
    assert app.refresh().status_code == 401


def test_an_access_token_that_has_expired_signs_nobody_out(app: ClientApp) -> None:
    app.sign_on()
    said = claims(app.tokens["access_token"])
    expired = by_the_tenants_key(said | {"exp": int(time.time())})
    assert whole(app.sign_out(expired, x_correlation_id=ID)) == NOT_ACCEPTED
    assert app.sign_out(by_the_tenants_key(said)).status_code == 200, "only exp was at fault"


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
def test_signing_out_takes_a_token(app: ClientApp, headers: dict[str, str | None]) -> None:
    access = app.sign_on().json()["access_token"]
    given = {name: value and value.replace("{}", access) for name, value in headers.items()}
    assert whole(app.sign_out(**{"x_correlation_id": ID, **given})) == NOT_ACCEPTED
    assert app.refresh().status_code == 200


def test_signing_out_takes_a_service_of_the_tenant(app: ClientApp) -> None:
    app.sign_on()
    answer = app.sign_out(x_auth_service_id="unknown", x_correlation_id=ID)
    assert whole(answer) == NOT_AVAILABLE
    assert app.sign_out(x_auth_service_id=None).status_code == 400
    assert app.refresh().status_code == 200


def test_signing_out_is_two_statements(app: ClientApp, stays_stale: None) -> None:
    app.sign_on()
    with CaptureQueriesContext(connection) as captured:
        assert app.sign_out().status_code == 200
    assert verbs(captured) == ["SELECT", "UPDATE"]


# Of one access token


def test_the_revocation_of_an_access_token_is_kept_until_it_would_have_expired(app: ClientApp) -> None:
    resource_server = platform("nagra")
    app.sign_on()
    said = claims(app.tokens["access_token"])
    for _ in range(2):
        assert resource_server.revoke(app.tokens["access_token"]).status_code == 200
    (row,) = RevokedAccessToken.objects.for_tenant("nagra")
    assert row.jti == said["jti"]
    assert row.expires_at.timestamp() == pytest.approx(said["exp"], abs=0.01)
    assert row.revoked_at < row.expires_at
    app.refresh()
    assert resource_server.sees(app.tokens["access_token"]), "the next one is another"


def test_one_tenant_cannot_revoke_what_another_has_issued(app: ClientApp) -> None:
    sunrise = operator("sunrise", bytes(range(101, 133)))
    theirs = platform("sunrise")
    ours = platform("nagra")
    app.sign_on()
    for token in ("access_token", "refresh_token"):
        assert theirs.revoke(app.tokens[token]).status_code == 200
        assert not theirs.sees(app.tokens[token])
        assert ours.sees(app.tokens[token])
    assert sunrise.tenant_id == "sunrise"
    assert not RevokedAccessToken.unscoped.exists()


# Nothing gives back what was taken away


@pytest.mark.parametrize("model", [Tenant, Service, Key])
def test_what_was_read_before_a_cut_off_does_not_undo_it(app: ClientApp, model: Any) -> None:
    app.sign_on()
    rows = model.objects if model is Tenant else model.unscoped
    read_before = rows.get()
    revoke_issued(rows.get())
    for name, value in (("name", "Another"), ("not_after", None)):
        if hasattr(read_before, name):
            setattr(read_before, name, value)
    read_before.save()
    assert rows.get().revoked_before is not None
    assert app.refresh().status_code == 401


def test_what_was_read_before_a_switch_does_not_undo_it(app: ClientApp) -> None:
    read_before = Tenant.objects.get(pk="nagra")
    Tenant.objects.get(pk="nagra").save_restriction(enabled=False)
    read_before.name = "Another"
    read_before.save()
    tenant = Tenant.objects.get(pk="nagra")
    assert (tenant.name, tenant.enabled) == ("Another", False)


def test_a_cut_off_is_never_refused(app: ClientApp) -> None:
    app.sign_on()
    Service.objects.for_tenant("nagra").update(settings={"no": "such setting"})
    key = Key.objects.for_tenant("nagra").get()
    Key.objects.for_tenant("nagra").update(state="revoked", algorithm="XS256")
    revoke_issued(Service.objects.for_tenant("nagra").get())
    revoke_issued(key)
    for row in (Service.objects.for_tenant("nagra").get(), Key.objects.for_tenant("nagra").get()):
        assert row.revoked_before is not None
    assert Key.objects.for_tenant("nagra").get().state == "revoked"


def test_a_key_whose_row_is_gone_proves_nothing_any_more(app: ClientApp) -> None:
    app.sign_on()
    token = app.session_token()
    Key.unscoped.filter(tenant="nagra")._raw_delete("default")
    assert app.redeem(token).status_code == 401
    assert app.refresh().status_code == 401


def test_a_revoked_signing_key_stays_revoked_and_as_it_is(app: ClientApp) -> None:
    key = SigningKey.objects.for_tenant("nagra").get()
    read_before = SigningKey.objects.for_tenant("nagra").get()
    rotation.revoke(key)
    for changes in ({"state": "active"}, {"state": "retiring"}, {"kid": "changed"}, {"public_jwk": {}}):
        row = SigningKey.objects.for_tenant("nagra").get(pk=read_before.pk)
        for name, value in changes.items():
            setattr(row, name, value)
        with pytest.raises(ValidationError):
            row.save()
