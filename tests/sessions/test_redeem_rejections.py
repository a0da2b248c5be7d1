"""Rejected session tokens, and rejections that do not redeem the token."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine

from ags.sessions.models import Account, SecurityEvent, SessionToken
from tenants import snapshot as tenants_snapshot
from tenants.models import Key, KeyState, Service
from tenants.revocation import revoke_issued
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.operators import create_operator
from tests.support.rejections import REJECTIONS, reject_and_accept
from tests.support.responses import CORRELATION_ID, NOT_AUTHENTICATED, full_response
from tests.support.sign_ons import get_devices, get_events, redeem_token, update_row

# Invalid tokens


def other_service(app: ClientApp, token: str) -> str:
    """A token of another service of the same tenant."""
    Service(
        tenant_id="nagra", name="Another", strategy="operator_token", display_name="A", enabled=True
    ).save()
    snapshot.invalidate("nagra")
    answer = app.head_end.present(app.head_end.token(), x_auth_service_id="Another")
    another: str = answer.json()["sessionToken"]
    return another


def other_tenant(app: ClientApp, token: str) -> str:
    sunrise = create_operator("sunrise", bytes(range(101, 133)))
    snapshot.invalidate("sunrise")
    return ClientApp(sunrise).session_token()


def redeemed(app: ClientApp, token: str) -> str:
    assert app.redeem(token).status_code == 201
    return token


def expired(app: ClientApp, token: str) -> str:
    update_row(SessionToken, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    return token


def revoked(app: ClientApp, token: str) -> str:
    update_row(SessionToken, revoked_at=datetime.now(UTC))
    return token


def revoked_with_account(app: ClientApp, token: str) -> str:
    revoke_issued(Account.objects.for_tenant("nagra").create(tenant_id="nagra", account_id="account-1"))
    return token


def of_a_revoked_key(app: ClientApp, token: str) -> str:
    key = Key.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()
    return token


INVALID_TOKENS: dict[str, tuple[Callable[[ClientApp, str], str], str]] = {
    "unknown": (lambda app, token: "a" * 26, "token_unknown"),
    "empty": (lambda app, token: "", "token_unknown"),
    "in capital letters": (lambda app, token: token.upper(), "token_unknown"),
    "an injection": (lambda app, token: "' OR 1=1 --", "token_unknown"),
    "in letters of another script": (lambda app, token: "\u0430" * 26, "token_unknown"),
    "expired": (expired, "token_expired"),
    "redeemed": (redeemed, "token_spent"),
    "revoked": (revoked, "revoked"),
    "revoked with the account": (revoked_with_account, "revoked"),
    "of a revoked key": (of_a_revoked_key, "key_not_in_force"),
    "of another service": (other_service, "token_unknown"),
    "of another tenant": (other_tenant, "token_unknown"),
}


@pytest.mark.parametrize(("invalidate", "reason"), INVALID_TOKENS.values(), ids=INVALID_TOKENS)
@pytest.mark.parametrize("members", [{}, {"clientId": "x"}], ids=["first", "later"])
def test_every_invalid_token_gets_the_same_response_and_its_reason_is_logged(
    app: ClientApp,
    caplog: pytest.LogCaptureFixture,
    invalidate: Callable[[ClientApp, str], str],
    reason: str,
    members: dict[str, Any],
) -> None:
    token = invalidate(app, app.session_token())
    before = len(get_devices())
    caplog.clear()
    caplog.set_level("INFO")
    assert full_response(redeem_token(app, token, **members)) == NOT_AUTHENTICATED
    assert [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"] == [reason]
    assert len(get_devices()) == before


def test_a_token_expires_by_the_databases_clock(app: ClientApp) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=5), tick=True):
        assert app.sign_on().status_code == 201, "the clock of the database is right"
    token = app.session_token()
    SessionToken.objects.for_tenant("nagra").update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=5), tick=True):
        assert full_response(redeem_token(app, token)) == NOT_AUTHENTICATED


def test_repeated_redemptions_are_counted_in_one_security_event(app: ClientApp) -> None:
    token = app.session_token("Kühn 7")
    first = redeem_token(app, token).json()
    assert get_events() == []
    for _ in range(3):
        assert full_response(redeem_token(app, token)) == NOT_AUTHENTICATED
    assert full_response(redeem_token(app, token, clientId=first["client_id"])) == NOT_AUTHENTICATED
    (event,) = SecurityEvent.objects.for_tenant("nagra")
    row = SessionToken.objects.for_tenant("nagra").get()
    assert (event.kind, event.subject, event.account_id) == ("session_token_reused", str(row.pk), "Kühn 7")
    assert (event.times, event.correlation_id) == (4, CORRELATION_ID)
    assert row.redeemed_at is not None
    assert row.redeemed_at <= event.first_at <= event.latest_at
    app.tokens = first
    assert app.refresh().status_code == 200, "the first sign-on stays valid"


def test_an_unknown_token_stores_nothing(app: ClientApp) -> None:
    app.session_token()
    for token in ("a" * 26, "", "x" * 128):
        redeem_token(app, token)
    assert get_events() == []
    assert get_devices() == []
    assert not Account.unscoped.exists()


@pytest.mark.parametrize("stale", [False, True], ids=["current snapshot", "stale snapshot"])
@pytest.mark.parametrize(("reject", "expected", "later"), REJECTIONS.values(), ids=REJECTIONS)
def test_a_403_does_not_redeem_the_token(
    app: ClientApp,
    monkeypatch: pytest.MonkeyPatch,
    reject: Callable[[ClientApp], Callable[[], None]],
    expected: dict[str, Any],
    later: bool,
    stale: bool,
) -> None:
    monkeypatch.setattr(tenants_snapshot, "VERSIONS_MAX_AGE", 3600.0 if stale else 0.0)
    token = app.session_token()
    undo = reject(app)
    known = app.tokens.get("client_id")
    members = {"clientId": known} if later else {}
    unused = SessionToken.objects.for_tenant("nagra").filter(redeemed_at=None)
    client_id = reject_and_accept(
        lambda: redeem_token(app, token, **members), undo, expected, lambda: unused.count() == 1
    )
    assert (client_id == known) == later
    assert get_events() == [], "a rejection is not a reuse"
