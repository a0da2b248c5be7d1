"""What the audit trail records of grants, redemptions and revocations, and that it is one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from ags.sessions.models import Device, Event, RevokedAccessToken, SecurityEvent, SessionToken
from ags.sessions.services import revoke
from ags.sessions.services.issue import REDEMPTION_COLUMNS
from ags.sessions.tokens.client_tokens import read_access_token
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.audit_trail import ADDRESS, get_events, reject_events, request_context
from tests.support.batches import execute_together
from tests.support.choices import is_choice_open
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd, Platform
from tests.support.event_loop import open_application, post_json, run_in_event_loop
from tests.support.operators import create_platform
from tests.support.rejections import REJECTIONS
from tests.support.sign_ons import age_sign_on, get_device, get_devices, get_kid

OTHER_ADDRESS = "2001:db8::1"


@pytest.fixture(autouse=True)
def _behind_a_proxy(settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES = 1


def get_row() -> SessionToken:
    return SessionToken.objects.for_tenant("nagra").latest("pk")


def get_redemption() -> dict[str, Any]:
    row = get_row()
    return {name: getattr(row, name) for name in REDEMPTION_COLUMNS}


NOT_REDEEMED = dict.fromkeys(REDEMPTION_COLUMNS)


# Grants and redemptions are columns of the session token


def redeem(app: ClientApp, token: str, device: dict[str, Any], **headers: str) -> Any:
    body = {"parameters": [{"name": "sessionToken", "value": token}], **device}
    return app.call("/ags/signOnWithSessionToken", body, **{"x_forwarded_for": OTHER_ADDRESS, **headers})


def test_a_grant_records_the_key_and_the_client(nagra: HeadEnd) -> None:
    answer = nagra.present(nagra.token(), x_correlation_id="grant", x_forwarded_for=ADDRESS)
    assert answer.status_code == 200
    row = get_row()
    assert (row.kid, row.client_address, row.correlation_id) == (nagra.kid, ADDRESS, "grant")
    assert row.account_id == "account-1"
    assert get_redemption() == NOT_REDEEMED
    assert get_events() == []


@pytest.mark.parametrize("later", [False, True])
def test_a_redemption_records_the_client_and_the_device(app: ClientApp, later: bool) -> None:
    known = app.sign_on().json()["client_id"]
    token = app.session_token()
    device = {"clientId": known} if later else {"deviceInformation": {}}
    answer = redeem(app, token, device, x_correlation_id="redemption")
    assert answer.status_code == 201
    row = get_row()
    assert (row.redemption_correlation_id, row.redemption_address) == ("redemption", OTHER_ADDRESS)
    assert row.client_id == answer.json()["client_id"]
    assert (row.client_id == known) is later
    assert (row.client_address, row.kid) == ("127.0.0.1", app.head_end.kid), "of the grant"
    assert row.correlation_id != "redemption"
    assert get_events() == []


@pytest.mark.parametrize("later", [False, True])
def test_a_direct_sign_on_records_the_grant_and_the_redemption_in_one_row(
    app: ClientApp, sign_on_with_token: None, later: bool
) -> None:
    known = app.sign_on().json()["client_id"]
    before = SessionToken.unscoped.count()
    device: dict[str, Any] = {"clientId": known} if later else {"deviceInformation": {}}
    parameters = [{"name": "OperatorAuthToken", "value": app.head_end.token()}]
    body = {"parameters": parameters, **device}
    answer = app.call("/ags/signOn", body, x_correlation_id="direct", x_forwarded_for=OTHER_ADDRESS)
    assert answer.status_code == 201
    row = get_row()
    assert (row.kid, row.correlation_id, row.client_address) == (app.head_end.kid, "direct", OTHER_ADDRESS)
    assert (row.redemption_correlation_id, row.redemption_address) == ("direct", OTHER_ADDRESS)
    assert row.client_id == answer.json()["client_id"]
    assert (row.client_id == known) is later
    assert row.redeemed_at == row.created_at
    assert (SessionToken.unscoped.count(), get_events()) == (before + 1, [])


@pytest.mark.parametrize(
    ("reject", "later"), [(each[0], each[2]) for each in REJECTIONS.values()], ids=REJECTIONS
)
def test_a_rejected_redemption_records_nothing(
    app: ClientApp, reject: Callable[[ClientApp], Callable[[], None]], later: bool
) -> None:
    token = app.session_token()
    undo = reject(app)
    device: dict[str, Any] = {"clientId": get_device().client_id} if later else {"deviceInformation": {}}
    row = SessionToken.objects.for_tenant("nagra").earliest("pk")
    assert redeem(app, token, device).status_code == 403
    row.refresh_from_db()
    assert {name: getattr(row, name) for name in REDEMPTION_COLUMNS} == NOT_REDEEMED
    assert get_events() == []
    undo()
    assert redeem(app, token, device, x_forwarded_for=ADDRESS).status_code == 201
    row.refresh_from_db()
    assert row.redemption_address == ADDRESS


# Choices, sign-outs and revocations have an event


def expect_event(kind: Event.Kind, client_id: str, **fields: Any) -> None:
    """Check the only event of this kind, caused by a request with the correlation ID `cause`."""
    (event,) = get_events(kind=kind)
    assert {name: getattr(event, name) for name in EVENT_FIELDS} == {
        **dict.fromkeys(EVENT_FIELDS, ""),
        "tenant_id": "nagra",
        "account_id": "account-1",
        "client_id": client_id,
        "correlation_id": "cause",
        "client_address": ADDRESS,
        "details": {},
        **fields,
    }


EVENT_FIELDS = [
    *("tenant_id", "service", "kid", "correlation_id", "client_address"),
    *("account_id", "client_id", "actor", "reason", "details"),
]

HEADERS = {"x_correlation_id": "cause", "x_forwarded_for": ADDRESS}


@pytest.mark.parametrize("later", [False, True])
def test_a_choice_is_an_event_once(app: ClientApp, trial: Service, later: bool) -> None:
    app.sign_on_directly("account-1")
    device = {"clientId": app.tokens["client_id"]} if later else {}
    token, other = app.request_choices(**device)
    assert get_events() == []
    answer = app.choose_account(token, **HEADERS)
    assert answer.status_code == 201
    client_id = answer.json()["client_id"]
    assert (client_id == device.get("clientId")) is later
    expect_event(Event.Kind.SIGNED_ON, client_id, service=TRIAL)
    assert [app.choose_account(each).status_code for each in (token, other)] == [401, 401]
    assert len(get_events()) == 1


def test_a_choice_for_a_rejected_device_is_no_event(app: ClientApp, trial: Service) -> None:
    token, _ = app.request_choices(clientId="unknown")
    assert app.choose_account(token).status_code == 403
    assert get_events() == []


def sign_out(app: ClientApp, platform: Platform) -> int:
    status: int = app.sign_out(**HEADERS).status_code
    return status


def revoke_access_token(app: ClientApp, platform: Platform) -> int:
    status: int = platform.revoke(app.tokens["access_token"], **HEADERS).status_code
    return status


def revoke_refresh_token(app: ClientApp, platform: Platform) -> int:
    status: int = platform.revoke(app.tokens["refresh_token"], **HEADERS).status_code
    return status


def reuse_refresh_token(app: ClientApp, platform: Platform) -> int:
    used = app.tokens["refresh_token"]
    if get_device().generation == 0:
        assert app.refresh(used).status_code == 200
        age_sign_on(11)
    status: int = app.refresh(used, **HEADERS).status_code
    return status


def end_as_staff(app: ClientApp, platform: Platform) -> int:
    staff = Client(raise_request_exception=False)
    staff.force_login(User.objects.get_or_create(username="mara", is_superuser=True, is_staff=True)[0])
    page = f"/admin/ags_sessions/device/{get_device().pk}/end/"
    headers = {name.replace("_", "-"): value for name, value in HEADERS.items()}
    status: int = staff.post(page, headers=headers).status_code
    return status


ENDED, REVOKED = Event.Kind.SIGN_ON_ENDED, Event.Kind.ACCESS_TOKEN_REVOKED

Cause = Callable[[ClientApp, Platform], int]

CAUSES: dict[str, tuple[Cause, int, Event.Kind, dict[str, str]]] = {
    "sign-out": (sign_out, 200, ENDED, {"reason": "signed_out", "service": SERVICE, "kid": "access_token"}),
    "revocation of an access token": (
        revoke_access_token,
        200,
        REVOKED,
        {"kid": "access_token", "actor": "platform"},
    ),
    "revocation of a refresh token": (
        revoke_refresh_token,
        200,
        ENDED,
        {"reason": "revoked", "kid": "refresh_token", "actor": "platform"},
    ),
    "reuse": (reuse_refresh_token, 401, ENDED, {"reason": "refresh_token_reused", "kid": "refresh_token"}),
    "staff": (end_as_staff, 302, ENDED, {"reason": "ended_by_staff", "actor": "mara"}),
}
"""Causes of events: the status of their response, and the kind and the fields of the event. `kid` is that of
this token. The actor `platform` is the resource server."""


@pytest.mark.parametrize(("cause", "status", "kind", "fields"), CAUSES.values(), ids=CAUSES)
def test_an_end_or_revocation_is_an_event_once(
    app: ClientApp, cause: Cause, status: int, kind: Event.Kind, fields: dict[str, str]
) -> None:
    platform = create_platform("nagra")
    app.sign_on()
    assert get_events() == []
    assert cause(app, platform) == status
    expected = dict(fields)
    if "kid" in fields:
        expected["kid"] = get_kid(app.tokens[fields["kid"]])
    if fields.get("actor") == "platform":
        expected["actor"] = platform.client_id
    expect_event(kind, app.tokens["client_id"], **expected)
    cause(app, platform)
    assert len(get_events()) == 1, "nothing ended or was revoked again"


def test_the_revocation_of_an_invalid_token_is_no_event(app: ClientApp, sunrise: HeadEnd) -> None:
    app.sign_on()
    platform = create_platform("nagra")
    for token in ("garbage", app.tokens["access_token"] + "A"):
        assert platform.revoke(token).status_code == 200
    assert create_platform("sunrise").revoke(app.tokens["refresh_token"]).status_code == 200
    assert get_events() == get_events("sunrise") == []


# An event and its cause are one transaction


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("cause", "status"), [each[:2] for each in CAUSES.values()], ids=CAUSES)
def test_without_its_event_nothing_ends_and_nothing_is_revoked(
    app: ClientApp, cause: Cause, status: int
) -> None:
    platform = create_platform("nagra")
    app.sign_on()
    with reject_events():
        assert cause(app, platform) == 500
    assert get_device().ended_at is None
    assert get_events() == []
    for model in (RevokedAccessToken, SecurityEvent):
        assert not model.unscoped.exists()
    assert cause(app, platform) == status
    assert len(get_events()) == 1


@pytest.mark.django_db(transaction=True)
def test_without_its_event_a_choice_is_not_redeemed(app: ClientApp, trial: Service) -> None:
    token, _ = app.request_choices()
    with reject_events():
        assert app.choose_account(token).status_code == 500
    assert is_choice_open()
    assert get_devices() == []
    assert app.choose_account(token).status_code == 201
    assert len(get_events()) == 1


# Batches


def sign_out_together(head_end: HeadEnd, tokens: Sequence[str]) -> list[int]:
    """Sign out with all tokens in one statement; return the statuses."""
    statuses: list[int] = []

    async def test() -> None:
        async with open_application():
            execute_together(revoke._endings, len(tokens))
            requests = [
                post_json("/ags/signOut", {}, head_end.headers(authorization=f"Bearer {token}"))
                for token in tokens
            ]
            statuses.extend([status for status, _ in await asyncio.gather(*requests)])

    run_in_event_loop(test())
    return statuses


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_sign_outs_of_one_sign_on_in_a_batch_are_one_event(app: ClientApp) -> None:
    app.sign_on()
    assert sign_out_together(app.head_end, [app.tokens["access_token"]] * 3) == [200] * 3
    assert len(get_events()) == 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_in_a_batch_only_the_sign_on_without_its_event_does_not_end(app: ClientApp) -> None:
    tokens = [
        app.sign_on(account).json()["access_token"] for account in ("account-2", "account-1", "account-3")
    ]
    with reject_events():
        assert sign_out_together(app.head_end, tokens) == [200, 500, 200]
    ended = Device.objects.for_tenant("nagra").filter(ended_at__isnull=False)
    assert sorted(ended.values_list("account__account_id", flat=True)) == ["account-2", "account-3"]
    assert sorted(event.account_id for event in get_events()) == ["account-2", "account-3"]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_revocations_of_one_access_token_in_a_batch_are_one_event(app: ClientApp) -> None:
    raw = [app.sign_on(account).json()["access_token"] for account in ("account-1", "account-2")]
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    tokens = [read_access_token(tenant, raw[index]) for index in (0, 1, 0)]

    async def test() -> None:
        async with open_application():
            execute_together(revoke._revocations, len(tokens))
            revocations = [
                revoke.revoke_access_token("nagra", token, request_context(), actor="platform")
                for token in tokens
            ]
            await asyncio.gather(*revocations)

    run_in_event_loop(test())
    assert sorted(event.account_id for event in get_events()) == ["account-1", "account-2"]
    assert RevokedAccessToken.unscoped.count() == 2
