"""Redeeming session tokens: a device signs on, and a rejection does not redeem the token."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import Account, Device, DeviceStatus, SessionToken
from tenants.models import SigningKey, Tenant
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.rejections import AMBIGUOUS_DEVICES
from tests.support.responses import CORRELATION_ID, DEVICE_UNKNOWN, SIGN_ON_MALFORMED, full_response
from tests.support.sign_ons import DEVICE_INFORMATION, get_devices, get_events, redeem_token

# The response and the rows


def test_the_response_follows_the_contract(app: ClientApp) -> None:
    before = get_database_time().timestamp()
    answer = app.sign_on("Kühn 7")
    after = get_database_time().timestamp()
    assert answer.status_code == 201
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    access, refresh = body.pop("access_token"), body.pop("refresh_token")
    (device,) = get_devices()
    assert body == {
        "token_type": "bearer",
        "client_id": device.client_id,
        "accountId": "Kühn 7",
        "expires_in": 3600,
        "refresh_expires_in": 172800,
        "fixed_refresh_expires_in": 7776000,
    }
    assert all(type(body[name]) is int for name in body if name.endswith("_in"))
    assert re.fullmatch("[0-9a-f]{32}", device.client_id)

    claims = jwt.decode(access, options={"verify_signature": False})
    common = {
        "ver": "1.0",
        "tenantId": "nagra",
        "accountId": "Kühn 7",
        "userId": "Kühn 7",
        "deviceId": device.client_id,
    }
    assert [type(claims[name]) for name in ("iat", "exp", "jti")] == [int, int, str]
    issued = claims.pop("iat")
    assert int(before) <= issued <= after
    assert claims.pop("exp") == issued + 3600
    assert len(claims.pop("jti")) == 32
    assert claims == common | {"typ": "DevAuthN", "iss": "ags", "aud": "nagra", "sid": device.sign_on}
    assert jwt.get_unverified_header(access) == {
        "alg": "ES256",
        "typ": "JWT",
        "kid": SigningKey.objects.for_tenant("nagra").get(state="active").kid,
    }

    claims = jwt.decode(refresh, options={"verify_signature": False})
    assert [type(claims[name]) for name in ("exp", "fixed_exp", "jti")] == [int, int, str]
    for name, seconds in (("exp", 172_800), ("fixed_exp", 7_776_000)):
        assert int(before) <= claims.pop(name) - seconds <= after
    assert claims.pop("jti")
    assert claims == common | {"typ": "RefreshAuthN"}


def test_the_access_token_follows_the_settings_of_the_tenant(nagra: HeadEnd, app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.issuer, tenant.audience = "https://ags.nagra.example", "platform"
    tenant.access_token_ttl, tenant.refresh_token_ttl, tenant.sign_on_ttl = 61, 9000, 8000
    tenant.save()
    body = app.sign_on().json()
    claims = jwt.decode(body["access_token"], options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["exp"] - claims["iat"]) == (tenant.issuer, "platform", 61)
    lifetimes = [body[f"{name}expires_in"] for name in ("", "refresh_", "fixed_refresh_")]
    assert lifetimes == [61, 8000, 8000], "no refresh token outlives its sign-on"


def test_access_tokens_can_be_signed_with_a_shared_secret(nagra: HeadEnd, app: ClientApp) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.signing_algorithm = "HS256"
    tenant.save()
    SigningKey.objects.for_tenant(tenant).get(state="active").delete()
    secret = bytes(range(200, 232))
    SigningKey.generate(tenant, state="active", secret=secret).save()
    token = app.sign_on().json()["access_token"]
    assert jwt.decode(token, secret, ["HS256"], audience="nagra")["accountId"] == "account-1"
    assert app.sign_out().status_code == 200


@pytest.mark.parametrize("information", [DEVICE_INFORMATION, {}], ids=["much", "nothing"])
def test_the_device_information_is_stored_unchanged(app: ClientApp, information: dict[str, Any]) -> None:
    assert app.sign_on(deviceInformation=information, somethingElse=1).status_code == 201
    (device,) = get_devices()
    assert device.information == information


def test_the_rows_contain_everything_but_the_tokens(app: ClientApp) -> None:
    token = app.session_token()
    body = redeem_token(app, token).json()
    (row,), (device,) = SessionToken.objects.for_tenant("nagra"), get_devices()
    account = Account.objects.for_tenant("nagra").get()
    assert (account.account_id, account.status) == ("account-1", "active")
    assert (device.account_id, device.status, device.correlation_id) == (
        account.pk,
        "enabled",
        CORRELATION_ID,
    )
    assert device.key is not None
    assert row.redeemed_at is not None
    assert (device.service.name, device.key.kid, device.generation) == (SERVICE, "nagra-key-1", 0)
    assert device.proven_at == row.created_at <= row.redeemed_at <= device.signed_on_at
    assert device.fixed_expires_at - device.signed_on_at == timedelta(days=90)
    assert (device.ended_at, device.end_reason, device.used) == (None, "", [])
    stored = repr([SessionToken.unscoped.values().get(), Device.unscoped.values().get()])
    assert not [secret for secret in (token, body["access_token"], body["refresh_token"]) if secret in stored]


def test_each_first_sign_on_registers_a_device(app: ClientApp) -> None:
    bodies = [app.sign_on().json() for _ in range(3)]
    for name in ("client_id", "access_token", "refresh_token"):
        assert len({body[name] for body in bodies}) == 3
    assert len(get_devices()) == 3
    assert Account.objects.for_tenant("nagra").count() == 1


@pytest.mark.parametrize("members", AMBIGUOUS_DEVICES.values(), ids=AMBIGUOUS_DEVICES)
def test_exactly_one_of_device_information_and_client_id_is_required(
    app: ClientApp, members: dict[str, Any]
) -> None:
    token = app.session_token()
    body = {"parameters": [{"name": "sessionToken", "value": token}], **members}
    answer = app.call("/ags/signOnWithSessionToken", body, x_correlation_id=CORRELATION_ID)
    assert full_response(answer) == SIGN_ON_MALFORMED
    assert app.redeem(token).status_code == 201, "the token is not redeemed"


def test_a_client_id_of_the_maximum_length_is_looked_up(app: ClientApp) -> None:
    assert full_response(redeem_token(app, app.session_token(), clientId="x" * 128)) == DEVICE_UNKNOWN


PARAMETERS: dict[str, tuple[Any, str]] = {
    "none": ([], "parameter_missing"),
    "an unknown one": ([{"name": "OperatorAuthToken", "value": "x"}], "parameter_unknown"),
    "too long": ([{"name": "sessionToken", "value": "x" * 129}], "parameter_invalid"),
    "a number": ([{"name": "sessionToken", "value": 1}], "parameter_invalid"),
    "twice": ([{"name": "sessionToken", "value": "x"}] * 2, "parameter_repeated"),
    "an object": ({"sessionToken": "x"}, "parameters_malformed"),
}


@pytest.mark.parametrize(("parameters", "reason"), PARAMETERS.values(), ids=PARAMETERS)
def test_the_only_parameter_is_the_session_token(app: ClientApp, parameters: Any, reason: str) -> None:
    body = {"parameters": parameters, "deviceInformation": {}}
    answer = app.call("/ags/signOnWithSessionToken", body)
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)


def test_the_name_of_the_parameter_is_case_insensitive(app: ClientApp) -> None:
    body = {"parameters": [{"name": "SESSIONTOKEN", "value": app.session_token()}], "deviceInformation": {}}
    assert app.call("/ags/signOnWithSessionToken", body).status_code == 201


INVALID_REQUESTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "no tenant": ({}, {"nv_tenant_id": None}),
    "no service": ({}, {"x_auth_service_id": None}),
    "two services": ({}, {"x_auth_service_id": "a,b"}),
    "another type": ({}, {"content_type": "text/plain"}),
    "compressed": ({}, {"content_encoding": "gzip"}),
    "no parameters": ({"parameters": None}, {}),
    "a parameter twice": ({"parameters": [{"name": "sessionToken", "value": "x"}] * 2}, {}),
    "no device": ({"deviceInformation": None}, {}),
    "two devices": ({"clientId": "x"}, {}),
    "a device too large": ({"deviceInformation": {"x": "x" * 70_000}}, {}),
    "a device too deep": ({"deviceInformation": {"x": json.loads("[" * 32 + "]" * 32)}}, {}),
}


@pytest.mark.parametrize(("members", "headers"), INVALID_REQUESTS.values(), ids=INVALID_REQUESTS)
def test_the_database_is_not_read_before_headers_and_body_are_valid(
    app: ClientApp, members: dict[str, Any], headers: dict[str, Any]
) -> None:
    parameter = {"name": "sessionToken", "value": "no such token"}
    good: dict[str, Any] = {"parameters": [parameter], "deviceInformation": {}}
    with CaptureQueriesContext(connection) as captured:
        answer = app.call("/ags/signOnWithSessionToken", good | members, **headers)
    assert answer.status_code in (400, 413, 415)
    assert list(captured) == []
    with CaptureQueriesContext(connection) as captured:
        assert app.call("/ags/signOnWithSessionToken", good).status_code == 401
    assert list(captured) != [], "only the change is rejected"


@pytest.mark.parametrize("status", [DeviceStatus.DELETED, DeviceStatus.DISABLED])
def test_the_limit_counts_the_enabled_devices_of_the_account(app: ClientApp, status: str) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.device_limit = 2
    tenant.save()
    assert [app.sign_on().status_code for _ in range(3)] == [201, 201, 403]
    assert app.sign_on("another account").status_code == 201
    first = get_devices()[0]
    assert app.sign_on(clientId=first.client_id).status_code == 201, "a known device does not count again"
    Device.objects.for_tenant("nagra").filter(pk=first.pk).update(status=status)
    assert [app.sign_on().status_code for _ in range(2)] == [201, 403]


@pytest.mark.parametrize("limit", [0, 1])
def test_lowering_the_device_limit_signs_no_device_out(nagra: HeadEnd, app: ClientApp, limit: int) -> None:
    kept = [app.sign_on().json() for _ in range(2)]
    tenant = Tenant.objects.get(pk="nagra")
    tenant.device_limit = limit
    tenant.save()
    for app.tokens in kept:
        assert app.refresh().status_code == 200
        assert app.sign_on(clientId=app.tokens["client_id"]).status_code == 201
    assert app.sign_on().json()["code"] == 20007


# Later sign-ons


def test_a_later_sign_on_replaces_the_previous_one(app: ClientApp) -> None:
    before = app.sign_on().json()
    information, generation = get_devices()[0].information, app.refresh().json()
    after = app.sign_on(clientId=before["client_id"])
    assert (after.status_code, after.json()["client_id"]) == (201, before["client_id"])
    (device,) = get_devices()
    assert (device.information, device.generation, device.used) == (information, 0, [])
    for old in (before, generation):
        assert app.refresh(old["refresh_token"]).status_code == 401
        assert app.sign_out(old["access_token"]).status_code == 401
    assert get_events() == [], "use of a replaced token is not a sign of theft"
    assert app.refresh().status_code == 200, "the new sign-on is valid"


def test_a_signed_out_device_can_sign_on_again(app: ClientApp) -> None:
    client_id = app.sign_on().json()["client_id"]
    assert app.sign_out().status_code == 200
    assert app.sign_on(clientId=client_id).status_code == 201
    assert app.refresh().status_code == 200
    assert (get_devices()[0].ended_at, get_devices()[0].end_reason) == (None, "")


def test_a_device_of_another_account_or_tenant_is_unknown(app: ClientApp, sunrise: HeadEnd) -> None:
    of_another_account = app.sign_on("another account").json()["client_id"]
    of_another_tenant = ClientApp(sunrise).sign_on().json()["client_id"]
    app.sign_on()
    token = app.session_token()
    for client_id in (of_another_account, of_another_tenant, "nothing", "' OR 1=1 --"):
        assert full_response(redeem_token(app, token, clientId=client_id)) == DEVICE_UNKNOWN
    assert redeem_token(app, token, clientId=app.tokens["client_id"]).status_code == 201


def test_an_account_added_by_staff_is_used_by_its_sign_on(app: ClientApp) -> None:
    added = Account(tenant_id="nagra", account_id="Kühn 7")
    added.save()
    assert app.sign_on("Kühn 7").status_code == 201
    assert app.sign_on("kühn 7").status_code == 201, "compared exactly"
    assert [device.account_id == added.pk for device in get_devices()] == [True, False]


@pytest.mark.parametrize("character", ["x", "\u00e4", "\U0001f4fa"])
def test_the_tokens_of_the_longest_account_id_can_be_used(app: ClientApp, character: str) -> None:
    assert app.sign_on(character * 255).status_code == 201
    assert max(len(app.tokens[name]) for name in ("access_token", "refresh_token")) < 4096
    assert app.refresh().status_code == 200
    assert app.sign_out().status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://[:]", "https://[1:2:3]", "https://a:99999", "https://a.b:443", "http://a:80", "a", 1]
)
def test_an_origin_that_no_browser_sends_is_rejected(nagra: HeadEnd, origin: Any) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = [origin]
    with pytest.raises(ValidationError, match="origin"):
        tenant.save()
