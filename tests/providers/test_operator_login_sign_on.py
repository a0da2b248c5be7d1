"""The provider `operator_login`, tested end to end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tenants.models import Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.upstream.https import HTTPSServer, Reply, as_json

ONE = {"accountId": "account-1", "accountInformation": "Home"}
TWO = {"accountId": "account-2", "accountInformation": "Cabin"}
DEVICE = {"deviceInformation": {"deviceType": "Android"}}


@pytest.fixture
def endpoint(nagra: HeadEnd) -> Iterator[HTTPSServer]:
    """An endpoint of nagra, and a service that uses it."""
    with HTTPSServer() as server:
        settings = {
            "address": f"{server.url}/login",
            "user": "ags",
            "secret": "x",
            **server.settings,
        }
        Service(
            tenant_id=nagra.tenant_id,
            name="Login",
            strategy="operator_login",
            settings=settings,
            display_name="x",
            enabled=True,
        ).save()
        yield server


def sign_on(app: ClientApp) -> Any:
    pairs = {"username": "anna", "password": "p"}
    parameters = [{"name": name, "value": value} for name, value in pairs.items()]
    return app.call("/ags/signOn", {"parameters": parameters, **DEVICE}, x_auth_service_id="Login")


def test_one_account_is_signed_on(endpoint: HTTPSServer, app: ClientApp) -> None:
    endpoint.replies["/login"] = as_json({"accounts": [ONE]})
    answer = sign_on(app)
    assert (answer.status_code, answer.json()["accountId"]) == (201, "account-1")


def test_the_chosen_account_is_signed_on(endpoint: HTTPSServer, app: ClientApp) -> None:
    endpoint.replies["/login"] = as_json({"accounts": [ONE, TWO]})
    answer = sign_on(app)
    assert answer.status_code == 300
    chosen = {one["accountInformation"]: one["userAccountToken"] for one in answer.json()["accounts"]}
    answer = app.call("/ags/subsequentSignOn", DEVICE, x_auth_service_id="Login", user_token=chosen["Cabin"])
    assert (answer.status_code, answer.json()["accountId"]) == (201, "account-2")
    assert len(endpoint.requests) == 1, "the choice needs no second request"


ERRORS = {
    "a wrong password": (as_json({"reason": "invalid_credentials"}, 401), 401, "not_authenticated"),
    "no account": (as_json({"accounts": []}), 401, "not_authenticated"),
    "suspended": (as_json({"reason": "account_suspended"}, 403), 403, "account_suspended"),
    "cancelled": (as_json({"reason": "account_cancelled"}, 403), 403, "account_cancelled"),
    "an endpoint that rejects AGS": (Reply(401), 503, None),
    "a failing endpoint": (Reply(500), 503, None),
}


@pytest.mark.parametrize(("reply", "status", "reason"), ERRORS.values(), ids=ERRORS)
def test_responses_of_the_endpoint_are_mapped_to_errors(
    endpoint: HTTPSServer, app: ClientApp, reply: Reply, status: int, reason: str | None
) -> None:
    endpoint.replies["/login"] = reply
    answer = sign_on(app)
    assert answer.status_code == status
    assert reason in {None, answer.json()["reason"]}
    assert ("retry-after" in answer.headers) is (status == 503)
