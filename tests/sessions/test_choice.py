"""Choosing between several accounts: `signOn` creates the choice, `subsequentSignOn` redeems it once."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from ags.sessions.models import Account, AccountChoice, SessionToken
from ags.sessions.tokens.opaque import USER_ACCOUNT_TOKEN, token_hashes
from providers import contract
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.choices import get_choices, is_choice_open, redeem_choice
from tests.support.clients import TRIAL, ClientApp
from tests.support.responses import CORRELATION_ID, INVALID_BODIES, error_response, full_response
from tests.support.sign_ons import DEVICE_INFORMATION, get_devices

pytestmark = pytest.mark.usefixtures("trial")


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
    before = get_database_time()
    answer = app.sign_on_directly("a-1,a-2", deviceInformation=DEVICE_INFORMATION)
    token = answer.json()["accounts"][0]["userAccountToken"]
    row = AccountChoice.objects.for_tenant("nagra").get()
    assert (row.service_id, row.key_id, row.used_at) == (trial.pk, None, None)
    assert (row.accounts, row.information, row.client_id) == (["a-1", "a-2"], DEVICE_INFORMATION, None)
    assert row.correlation_id == answer.headers["x-correlation-id"]
    assert before <= row.created_at <= get_database_time()
    # SQLite counts milliseconds.
    assert abs(row.expires_at - row.created_at - timedelta(minutes=10)) <= timedelta(milliseconds=2)
    secret = token.partition(".")[0]
    assert bytes(row.token_hash) == token_hashes(secret, USER_ACCOUNT_TOKEN)[0] != token_hashes(secret)[0]
    assert secret not in repr(AccountChoice.unscoped.values().get())


def test_each_of_the_maximum_number_of_accounts_can_be_chosen(app: ClientApp) -> None:
    names = [f"a{number}" for number in range(contract.MAX_ACCOUNTS)]
    for index in (0, 9, 10, len(names) - 1):
        tokens = app.request_choices(",".join(names))
        assert len(tokens) == len(names)
        assert redeem_choice(app, tokens[index]).json()["accountId"] == names[index]


# Redeeming a choice


@pytest.mark.parametrize("index", [0, 1, 2])
def test_the_requesting_device_signs_on_to_the_chosen_account(app: ClientApp, index: int) -> None:
    tokens = app.request_choices("a-1,Kühn 7,a-3", deviceInformation=DEVICE_INFORMATION)
    answer = redeem_choice(app, tokens[index])
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    (device,), (row,) = get_devices(), get_choices()
    body = answer.json()
    assert (body["client_id"], body["accountId"]) == (device.client_id, ["a-1", "Kühn 7", "a-3"][index])
    assert set(body) == set(app.sign_on().json()), "the same members as after signOnWithSessionToken"
    assert (device.account.account_id, device.information) == (body["accountId"], DEVICE_INFORMATION)
    assert (device.service.name, device.key_id, device.correlation_id) == (TRIAL, None, CORRELATION_ID)
    assert row.used_at is not None
    assert device.proven_at == row.created_at <= row.used_at <= device.signed_on_at
    assert app.refresh(body["refresh_token"]).status_code == 200


def test_a_known_device_keeps_its_client_id(app: ClientApp) -> None:
    client_id = app.sign_on_directly("a-2").json()["client_id"]
    _, token = app.request_choices("a-1,a-2", clientId=client_id)
    assert get_choices()[0].client_id == client_id
    answer = redeem_choice(app, token)
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
    assert redeem_choice(app, token, body).status_code == 201
    assert get_devices()[0].information == DEVICE_INFORMATION


def test_an_empty_body_can_have_any_content_type(app: ClientApp) -> None:
    token, _ = app.request_choices()
    assert redeem_choice(app, token, b"", content_type="text/plain").status_code == 201


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
    answer = redeem_choice(app, token, body if isinstance(body, bytes) else json.dumps(body))
    assert answer.status_code == 400
    assert full_response(answer) == expected
    assert is_choice_open()


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
    assert full_response(redeem_choice(app, None)) == missing
