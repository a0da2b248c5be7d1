"""Signing on with a proof: a device signs on, and a rejection stores nothing."""

from __future__ import annotations

from typing import Any

import pytest
from django import forms
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.sessions.models import Account
from providers.contract import Endpoint
from providers.dummy.strategy import Dummy
from tenants.models import Service, Tenant
from tenants.revocation import revoke_issued
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp
from tests.support.direct_sign_ons import get_session_tokens, sign_on_directly
from tests.support.rejections import AMBIGUOUS_DEVICES
from tests.support.responses import CORRELATION_ID, SIGN_ON_MALFORMED, full_response
from tests.support.sign_ons import DEVICE_INFORMATION, get_devices

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
    answer = sign_on_directly(app, "Kühn 7")
    (row,), (device,) = get_session_tokens(), get_devices()
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
