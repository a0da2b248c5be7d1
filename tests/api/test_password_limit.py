"""The limit on wrong passwords of a user name, with an endpoint of an operator that verifies them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.db.models import Model

from ags.limits import memory
from ags.sessions.models import Account, Device
from tenants.models import Service, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.clock import StoppedClock
from tests.support.sign_ons import update_row
from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply, as_json

MAXIMUM = 3
PASSWORD = "the password of Anna"
ANNA = {"accountId": "account-1", "accountInformation": "Home"}
CABIN = {"accountId": "account-2", "accountInformation": "Cabin"}
NEW_DEVICE = {"deviceInformation": {"deviceType": "Android"}}


@dataclass
class Login:
    """A service of nagra that uses an endpoint which accepts one password."""

    server: HTTPSServer
    app: ClientApp
    service: Service

    def sign_on(self, password: str = PASSWORD, username: str = "anna", **device: Any) -> Any:
        parameters = [{"name": "username", "value": username}, {"name": "password", "value": password}]
        body = {"parameters": parameters, **(device or NEW_DEVICE)}
        return self.app.call("/ags/signOn", body, x_auth_service_id=self.service.name)

    def statuses(self, number: int, password: str = "wrong", **others: Any) -> Counter[int]:
        return Counter(self.sign_on(password, **others).status_code for _ in range(number))


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


@pytest.fixture
def login(nagra: HeadEnd, app: ClientApp) -> Iterator[Login]:
    with HTTPSServer() as server:
        server.replies["/login"] = verify_password
        service = Service(
            tenant_id="nagra",
            name="Login",
            strategy="operator_login",
            display_name="Login",
            enabled=True,
            settings={
                "address": f"{server.url}/login",
                "user": "ags",
                "secret": "x",
                "max_password_failures": MAXIMUM,
                **server.settings,
            },
        )
        service.save()
        snapshot.invalidate("nagra")
        yield Login(server, app, service)


def verify_password(request: ReceivedRequest) -> Reply:
    if json.loads(request.body)["password"] != PASSWORD:
        return as_json({"reason": "invalid_credentials"}, 401)
    return as_json({"accounts": [ANNA]})


def test_passwords_are_not_verified_after_too_many_wrong_ones(login: Login, clock: StoppedClock) -> None:
    assert login.statuses(MAXIMUM) == {401: MAXIMUM}
    clock.ahead = 10.5
    refused = login.sign_on()
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "890")
    assert (refused.json()["code"], refused.json()["reason"]) == (42904, "too_many_password_failures")
    assert len(login.server.requests) == MAXIMUM
    metrics = login.app.head_end.client.get("/metrics", **{"ags.operations": True}).content.decode()
    assert 'ags_limited_requests_total{limit="password"} 1.0' in metrics
    clock.ahead = 900.0
    assert login.sign_on().status_code == 201


def test_402_guesses_of_one_password(login: Login) -> None:
    device = login.sign_on().json()["client_id"]
    login.server.requests.clear()
    guesses = [f"guess {number}" for number in range(402)]
    statuses = Counter(login.sign_on(guess).status_code for guess in guesses)
    assert statuses == {401: MAXIMUM, 429: 402 - MAXIMUM}
    assert len(login.server.requests) == MAXIMUM
    assert login.sign_on().status_code == 429, "a new device has to wait"
    assert login.sign_on(clientId=device).status_code == 201


def test_right_passwords_do_not_count(login: Login) -> None:
    assert login.statuses(MAXIMUM - 1) == {401: MAXIMUM - 1}
    assert login.statuses(5, PASSWORD) == {201: 5}
    assert login.statuses(2) == {401: 1, 429: 1}


def test_a_right_password_with_an_unknown_device_counts(login: Login) -> None:
    statuses = login.statuses(MAXIMUM + 1, PASSWORD, clientId="0" * 32)
    assert statuses == {403: MAXIMUM, 429: 1}
    assert login.sign_on().status_code == 429


def test_only_the_user_name_of_the_service_is_limited(login: Login, sunrise: HeadEnd) -> None:
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(username="bert").status_code == 201
    login.service.name = "Other login"
    login.service.pk = None
    login.service._state.adding = True
    login.service.save()
    snapshot.invalidate("nagra")
    assert login.sign_on().status_code == 201


SPELLINGS = {
    "case": "ANNA",
    "white space": "anna ",
    "white space inside": "an na",
    "a control character": "anna\x1f",
    "width": "\uff41nna",
    "accents": "\xe1n\u0303na",
    "strokes": "\u2c65nna",
    "a soft hyphen": "an\xadna",
    "a zero-width space": "an\u200bna",
    "an invisible letter": "an\u3164na",
    "an unassigned character": "an\u0378na",
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_that_an_upstream_may_take_for_the_same_name_are_one(login: Login, spelling: str) -> None:
    assert login.statuses(MAXIMUM) == {401: MAXIMUM}
    assert login.sign_on(username=spelling).status_code == 429


@pytest.mark.parametrize("other", ["ann", "anna2", "anna.b", "\u0430nna", "\u5b89\u5a1c", ""])
def test_other_names_are_not_limited(login: Login, other: str) -> None:
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(username=other).status_code == (201 if other else 401)


def test_a_device_of_another_spelling_is_not_known(login: Login) -> None:
    """On a server with case-sensitive names, it may be somebody else's, who guesses with many devices."""
    device = login.sign_on(username="Anna").json()["client_id"]
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(clientId=device).status_code == 429
    assert login.sign_on(username="Anna", clientId=device).status_code == 201


def test_a_right_password_that_is_refused_for_another_reason_does_not_count(login: Login) -> None:
    assert login.sign_on().status_code == 201
    refusals: list[tuple[type[Model], dict[str, Any], dict[str, Any], int]] = [
        (Tenant, {"max_sign_ons_per_account": 1}, {"max_sign_ons_per_account": 0}, 429),
        (Tenant, {"device_limit": 1}, {"device_limit": None}, 403),
        (Account, {"status": "suspended"}, {"status": "active"}, 403),
    ]
    for model, refused, accepted, status in refusals:
        update_row(model, **refused)
        snapshot.invalidate("nagra")
        responses = [login.sign_on() for _ in range(MAXIMUM + 1)]
        assert {response.status_code for response in responses} == {status}
        assert "too_many_password_failures" not in [response.json()["reason"] for response in responses]
        update_row(model, **accepted)
        snapshot.invalidate("nagra")
        assert login.sign_on().status_code == 201


def test_a_known_device_has_a_limit_of_its_own(login: Login) -> None:
    device = login.sign_on().json()["client_id"]
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.statuses(MAXIMUM + 1, clientId=device) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(clientId=device).status_code == 429
    assert len(login.server.requests) == 1 + 2 * MAXIMUM


def test_a_device_is_known_with_the_user_name_of_its_last_sign_on(login: Login) -> None:
    device = login.sign_on().json()["client_id"]
    assert login.statuses(MAXIMUM + 1, username="bert") == {401: MAXIMUM, 429: 1}
    assert login.sign_on(username="bert", clientId=device).status_code == 429
    assert login.app.redeem(login.app.session_token(), clientId=device).status_code == 201
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(clientId=device).status_code == 429, "its last sign-on was with a session token"


def test_a_disabled_device_is_not_known(login: Login) -> None:
    device = login.sign_on().json()["client_id"]
    Device.unscoped.update(status="disabled")
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    assert login.sign_on(clientId=device).status_code == 429


def test_a_device_that_has_chosen_an_account_is_known(login: Login) -> None:
    login.server.replies["/login"] = as_json({"accounts": [ANNA, CABIN]})
    choice = login.sign_on().json()["accounts"][1]["userAccountToken"]
    chosen = login.app.choose_account(choice, x_auth_service_id="Login")
    assert chosen.status_code == 201
    login.server.replies["/login"] = verify_password
    assert login.statuses(MAXIMUM + 1) == {401: MAXIMUM, 429: 1}
    login.server.replies["/login"] = as_json({"accounts": [ANNA, CABIN]})
    assert login.sign_on().status_code == 429
    assert login.sign_on(clientId=chosen.json()["client_id"]).status_code == 300


def test_an_unavailable_endpoint_locks_nobody_out(login: Login) -> None:
    login.server.replies["/login"] = Reply(500)
    assert login.statuses(MAXIMUM + 2, PASSWORD) == {503: MAXIMUM + 2}
    login.server.replies["/login"] = verify_password
    assert login.sign_on().status_code == 201


def test_only_another_value_than_the_default_is_stored(login: Login) -> None:
    """Processes of the previous release do not offer a service with a setting that they do not have."""
    assert login.service.settings["max_password_failures"] == MAXIMUM
    for value in ({"max_password_failures": 20}, {}):
        others = {k: v for k, v in login.service.settings.items() if k != "max_password_failures"}
        login.service.settings = {**others, **value}
        login.service.save()
        login.service.refresh_from_db()
        assert "max_password_failures" not in login.service.settings
    snapshot.invalidate("nagra")
    assert login.statuses(21) == {401: 20, 429: 1}


def test_no_limit(login: Login) -> None:
    login.service.settings = {**login.service.settings, "max_password_failures": 0}
    login.service.save()
    snapshot.invalidate("nagra")
    assert login.statuses(30) == {401: 30}


def test_the_user_name_is_stored_nowhere(login: Login, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    marker = "marker0815"
    assert login.statuses(MAXIMUM + 1, username=marker) == {401: MAXIMUM, 429: 1}
    device = Device.unscoped.get(client_id=login.sign_on(username="anna").json()["client_id"])
    assert device.username_hash is not None
    assert len(device.username_hash) == 32
    assert marker not in caplog.text
