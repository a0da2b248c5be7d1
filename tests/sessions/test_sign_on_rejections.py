"""Rejected direct sign-ons."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ags.sessions.models import Account, AccountChoice
from providers.contract import Endpoint
from providers.dummy.strategy import Dummy
from tenants import snapshot as tenants_snapshot
from tenants.models import Service
from tests.support.clients import TRIAL, ClientApp
from tests.support.direct_sign_ons import get_session_tokens, sign_on_directly, sign_on_with_operator_token
from tests.support.rejections import CONFIGURATION_CHANGES, REJECTIONS, reject_and_accept
from tests.support.responses import (
    CORRELATION_ID,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    error_response,
    full_response,
)
from tests.support.sign_ons import get_devices, get_events

AMBIGUOUS = error_response(
    403,
    40303,
    "account_ambiguous",
    "The credentials match more than one account; this endpoint cannot choose between them.",
)


# Rejections


def test_an_invalid_proof_is_a_401_and_stores_nothing(app: ClientApp, trial: Service) -> None:
    for account in ("nobody", "", "a-1,nobody", ",", "a-1,", "a-1,a-1", ",".join(map(str, range(51)))):
        assert full_response(sign_on_directly(app, account)) == NOT_AUTHENTICATED, account
    assert (get_session_tokens(), get_devices()) == ([], [])
    assert not AccountChoice.unscoped.exists()
    assert not Account.unscoped.exists()


def test_an_unavailable_upstream_is_a_503_with_retry_after(
    app: ClientApp, trial: Service, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    assert full_response(sign_on_directly(app, "away")) == UNAVAILABLE
    assert UNAVAILABLE["Retry-After"] == "1"
    assert [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"] == [
        "upstream_away"
    ]
    body = {"parameters": [{"name": "Account", "value": "away"}]}
    assert (
        full_response(app.head_end.post(body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID))
        == UNAVAILABLE
    )
    assert get_session_tokens() == []


def test_a_service_without_the_endpoint_is_not_available(app: ClientApp) -> None:
    assert full_response(sign_on_with_operator_token(app, app.head_end.token())) == SERVICE_NOT_AVAILABLE
    assert get_session_tokens() == []


def test_several_accounts_are_rejected_if_none_can_be_chosen(
    app: ClientApp, trial: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"parameters": [{"name": "Account", "value": "a-1,a-2"}]}
    assert (
        full_response(app.head_end.post(body, x_auth_service_id=TRIAL, x_correlation_id=CORRELATION_ID))
        == AMBIGUOUS
    )
    monkeypatch.setattr(Dummy, "endpoints", (Endpoint.SIGNON,))
    assert full_response(sign_on_directly(app, "a-1,a-2")) == AMBIGUOUS
    assert (get_session_tokens(), get_devices()) == ([], [])
    assert not AccountChoice.unscoped.exists()


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "expected", "later"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_does_not_use_up_the_proof(
    app: ClientApp,
    sign_on_with_token: None,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[ClientApp], Callable[[], None]],
    expected: dict[str, Any],
    later: bool,
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    app.head_end.discover()
    proof = app.head_end.token(jti="once")
    undo = reject(app)
    known = app.tokens.get("client_id")
    members = {"clientId": known} if later else {}
    rows = len(get_session_tokens())
    client_id = reject_and_accept(
        lambda: sign_on_with_operator_token(app, proof, **members),
        undo,
        expected,
        lambda: len(get_session_tokens()) == rows,
    )
    assert (client_id == known) == later
    again = sign_on_with_operator_token(app, proof, **members)
    assert (again.status_code, again.json()["reason"]) == (401, "replayed")
    assert app.head_end.present(proof).json()["reason"] == "replayed", (
        "a jti is accepted once by both endpoints"
    )
    assert get_events() == []


def test_a_proof_cannot_be_used_for_a_session_token_and_a_sign_on(
    app: ClientApp, sign_on_with_token: None
) -> None:
    proof = app.head_end.token(jti="once")
    assert app.head_end.present(proof).status_code == 200
    assert sign_on_with_operator_token(app, proof).json()["reason"] == "replayed"
    assert get_devices() == []


@pytest.mark.parametrize(("disable", "answer"), CONFIGURATION_CHANGES)
def test_revoked_or_disabled_configuration_signs_no_device_on_immediately(
    app: ClientApp,
    sign_on_with_token: None,
    stale_snapshots: None,
    disable: Callable[[], None],
    answer: dict[str, Any],
) -> None:
    app.head_end.discover()
    disable()
    for _ in range(2):
        assert full_response(sign_on_with_operator_token(app, app.head_end.token(jti="once"))) == answer
    assert (get_session_tokens(), get_devices()) == ([], [])


def test_a_device_of_another_account_is_unknown(app: ClientApp, trial: Service) -> None:
    other = app.sign_on_directly("another account").json()["client_id"]
    app.sign_on_directly("account-1")
    for client_id in (other, "nothing", "x" * 128):
        assert full_response(sign_on_directly(app, clientId=client_id)) == DEVICE_UNKNOWN
