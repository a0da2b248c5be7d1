"""Sends a marker in every input: it must not occur in the log or in a response."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import pytest
from django.db import connection

from ags import __version__
from ags.server.logs import JSONFormatter, TextFormatter
from ags.sessions.models import Account, AccountChoice, Device, SecurityEvent, SessionToken
from ags.sessions.services.devices import NewDevice, Proof
from ags.sessions.tokens.client_tokens import SignOn, read_access_token, read_refresh_token
from providers.dummy.strategy import Dummy
from providers.registry import strategies
from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, TRIAL, ClientApp, HeadEnd
from tests.support.database import database_unavailable
from tests.support.operators import create_platform

MARKER = "marker0815"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG)

    def lines() -> str:
        formatters: list[logging.Formatter] = [JSONFormatter(), TextFormatter()]
        return "\n".join(formatter.format(record) for record in caplog.records for formatter in formatters)

    return lines


def test_getting_a_session_token_reveals_no_secrets(
    nagra: HeadEnd, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = nagra.token(OpfAccountId=f"account-{MARKER}", jti=f"jti-{MARKER}")
    responses = [
        nagra.present(good, authorization=f"Bearer {MARKER}", cookie=f"a={MARKER}"),
        nagra.present(good),
        nagra.present(nagra.token(OpfAccountId=f"{MARKER}\n")),
        nagra.present(nagra.token(OpfTenantId=MARKER)),
        nagra.present(nagra.token(typ=MARKER)),
        nagra.present(MARKER),
        nagra.post({"parameters": [{"name": "OperatorAuthToken", "value": [MARKER]}]}),
        nagra.post('{"' + MARKER + '": 1, "' + MARKER + '": 1}'),
        nagra.post(MARKER, content_type=f"text/{MARKER}"),
        nagra.post(MARKER * 10_000),
        nagra.present(good, x_auth_service_id=MARKER * 20),
        nagra.client.get(f"/{MARKER}?a={MARKER}"),
        nagra.client.put(f"/ags/getSessionToken?{MARKER}"),
        nagra.client.get(f"/ags/servicediscovery?token={MARKER}", headers={"host": f"{MARKER}.example"}),
    ]
    with database_unavailable():
        responses.append(nagra.present(nagra.token(OpfAccountId=MARKER)))

    def crash(*_: Any) -> None:
        raise RuntimeError(good)

    monkeypatch.setattr(strategies()["operator_token"], "verify", crash)
    responses.append(nagra.present(good))
    assert {response.status_code for response in responses} >= {
        200,
        400,
        401,
        403,
        404,
        405,
        413,
        415,
        500,
        503,
    }
    assert MARKER not in logged()
    assert good not in logged()
    for response in responses:
        assert MARKER not in response.content.decode() + str(dict(response.headers))


def test_session_token_and_secret_are_neither_logged_nor_stored(nagra: HeadEnd, logged: Any) -> None:
    token = nagra.present(nagra.token()).json()["sessionToken"]
    assert token not in logged()
    assert repr(nagra.secret) not in logged()
    (row,) = SessionToken.objects.for_tenant("nagra").values()
    assert token not in json.dumps(row, default=str)
    assert token.encode() not in bytes(row["token_hash"])


@pytest.mark.django_db(transaction=True)
def test_requests_with_tokens_reveal_no_secrets(
    nagra: HeadEnd, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every URL of client apps and resource servers, with every outcome."""
    app, server = ClientApp(nagra), create_platform("nagra")
    account = f"account-{MARKER}"
    secrets = [MARKER, server.secret, server.basic]

    def signed_on(**members: Any) -> dict[str, Any]:
        secrets.append(app.session_token(account))
        response: dict[str, Any] = app.redeem(secrets[-1], **members).json()
        secrets.extend(response[name].rpartition(".")[2] for name in ("access_token", "refresh_token"))
        app.tokens = response
        return response

    first = signed_on(deviceInformation={MARKER: [MARKER]}, other=MARKER)
    spent = secrets[3]
    signed_on(clientId=first["client_id"])
    used = app.tokens["refresh_token"]
    secrets.extend(
        app.refresh().json()[name].rpartition(".")[2] for name in ("access_token", "refresh_token")
    )
    secrets.extend(server.introspect(app.tokens[name]).json()["jti"] for name in ("access_token",))
    rejected = [
        app.redeem(spent),
        app.redeem(MARKER),
        app.redeem(app.session_token(account), clientId=MARKER),
        app.redeem(app.session_token(account), clientId=[MARKER]),
        app.call("/ags/signOnWithSessionToken", '{"' + MARKER + '": 1, "' + MARKER + '": 1}'),
        app.call("/ags/signOnWithSessionToken", MARKER, content_type=f"text/{MARKER}"),
        app.call("/ags/signOnWithSessionToken", MARKER * 10_000),
        app.call(
            "/ags/signOnWithSessionToken", {"parameters": [{"name": "sessionToken", "value": [MARKER]}]}
        ),
        app.redeem(app.session_token(account), deviceInformation=MARKER),
        app.refresh(MARKER),
        app.refresh(first["refresh_token"]),
        app.refresh(first["access_token"]),
        app.refresh(authorization=f"{MARKER} {MARKER}"),
        app.refresh(tenantId=f"{MARKER}!"),
        app.call(f"/ias/v3/token/actions/refresh?{MARKER}", MARKER, authorization=f"Bearer {used}"),
        app.sign_out(MARKER),
        app.sign_out(first["access_token"]),
        app.sign_out(x_auth_service_id=MARKER * 20),
        server.introspect(MARKER, authorization=f"Basic {MARKER}"),
        server.introspect(app.tokens["access_token"], authorization=None),
        server.post("/oauth/introspect", f"token={MARKER}&token={MARKER}"),
        server.post("/oauth/revoke", {"token": MARKER, "client_secret": server.secret}),
        server.post(f"/oauth/revoke?token={MARKER}", f"token={MARKER}", content_type=f"text/{MARKER}"),
        nagra.client.get(f"/.well-known/jwks.json?tenant={MARKER}", headers={"origin": f"https://{MARKER}"}),
        nagra.client.get(f"/oauth/introspect?token={MARKER}"),
    ]
    successful = [server.introspect(MARKER), server.revoke(MARKER), server.revoke(first["access_token"])]
    with database_unavailable():
        rejected += [
            app.redeem(spent),
            app.refresh(),
            app.sign_out(),
            server.introspect(app.tokens["access_token"]),
            server.revoke(app.tokens["access_token"]),
        ]

    def crash(*_: Any) -> None:
        raise RuntimeError(f"{MARKER} {spent} {account}")

    with connection.execute_wrapper(crash):
        rejected += [app.redeem(spent), app.refresh(), app.sign_out(), server.revoke(first["refresh_token"])]
    Device.unscoped.update(used=[])
    rejected.append(app.refresh(used))  # looks stolen
    Account.unscoped.update(status="suspended")
    rejected += [app.refresh(), app.redeem(app.session_token(account))]
    assert {response.status_code for response in rejected} >= {400, 401, 403, 404, 405, 413, 415, 500, 503}
    assert {response.status_code for response in successful} == {200}
    assert [row.kind for row in SecurityEvent.unscoped.order_by("pk")] == [
        "session_token_reused",
        "refresh_token_reused",
    ]
    for secret in secrets:
        assert secret not in logged()
        for response in rejected + successful:
            assert secret not in response.content.decode() + str(dict(response.headers))
    assert min(response.status_code for response in rejected) >= 400


@pytest.mark.django_db(transaction=True)
def test_sign_on_with_a_choice_reveals_no_secrets(
    nagra: HeadEnd, trial: Service, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the 300 response contains the accounts."""
    app = ClientApp(nagra)
    accounts = f"a-{MARKER},b-{MARKER}"
    secrets = [MARKER]

    def choices(**members: Any) -> list[str]:
        tokens = app.request_choices(accounts, **members)
        secrets.append(tokens[0].partition(".")[0])
        return tokens

    used, other = choices(deviceInformation={MARKER: [MARKER]}, other=MARKER)
    body = {"parameters": [{"name": MARKER, "value": MARKER}], MARKER: MARKER}
    assert app.choose_account(used, body).status_code == 201
    secrets.extend(app.tokens[name].rpartition(".")[2] for name in ("access_token", "refresh_token"))
    unused, _ = choices(clientId=app.tokens["client_id"])
    unknown, _ = choices(clientId=MARKER)
    rejected = [
        app.choose_account(used),
        app.choose_account(other),
        app.choose_account(unknown),
        app.choose_account(MARKER),
        app.choose_account(f"{MARKER},{MARKER}"),
        app.choose_account(unused, MARKER, content_type=f"text/{MARKER}"),
        app.choose_account(unused, MARKER),
        app.choose_account(unused, {"parameters": [{"name": "x", "value": [MARKER]}]}),
        app.choose_account(unused, x_auth_service_id=MARKER * 20),
        app.choose_account(unused, x_auth_service_id=SERVICE),
        app.redeem(unused),
        app.sign_on_directly(f"{MARKER},{MARKER}"),
        app.sign_on_directly(MARKER * 30),
        app.sign_on_directly(MARKER, clientId=[MARKER]),
        app.sign_on_directly(MARKER, deviceInformation=MARKER),
        app.sign_on_directly(f"{MARKER},nobody"),
        app.sign_on_directly(f"{MARKER},away"),
        app.sign_on_directly(f"a-{MARKER}", clientId=MARKER),
        nagra.post({"parameters": [{"name": "Account", "value": accounts}]}, x_auth_service_id=TRIAL),
        nagra.client.get(f"/ags/signOn?{MARKER}"),
    ]
    with database_unavailable():
        rejected += [
            app.sign_on_directly(f"a-{MARKER}"),
            app.sign_on_directly(accounts),
            app.choose_account(unused),
        ]

    def crash(*_: Any) -> None:
        raise RuntimeError(f"{MARKER} {unused} {accounts}")

    with connection.execute_wrapper(crash):
        rejected += [
            app.sign_on_directly(f"a-{MARKER}"),
            app.sign_on_directly(accounts),
            app.choose_account(unused),
        ]
    Account.unscoped.update(status="suspended")
    rejected += [app.choose_account(unused), app.sign_on_directly(f"a-{MARKER}")]
    monkeypatch.setattr(Dummy, "verify", crash)
    rejected.append(app.sign_on_directly(accounts))
    assert {response.status_code for response in rejected} >= {400, 401, 403, 405, 415, 500, 503}
    assert min(response.status_code for response in rejected) >= 400
    assert [row.kind for row in SecurityEvent.unscoped.all()] == ["user_account_token_reused"]
    for secret in secrets:
        assert secret not in logged()
        for response in rejected:
            assert secret not in response.content.decode() + str(dict(response.headers))


def test_repr_contains_no_secrets(nagra: HeadEnd) -> None:
    """Crash reports, debuggers and log lines may contain the repr of an object."""
    app = ClientApp(nagra)
    app.sign_on(f"account-{MARKER}", deviceInformation={MARKER: 1})
    tenant = snapshot.get_tenant("nagra")
    assert tenant is not None
    device = Device.objects.for_tenant("nagra").get()
    access = read_access_token(tenant, app.tokens["access_token"])
    refresh = read_refresh_token(tenant, app.tokens["refresh_token"])
    sign_on = SignOn(device.account.account_id, device.client_id, device.sign_on, 0, 0.0, 0.0)
    proof = Proof(MARKER, 1, None, device.proven_at, 1)
    choice = AccountChoice(accounts=[MARKER], information={MARKER: 1}, token_hash=MARKER.encode())
    for value in (access, refresh, sign_on, proof, choice, NewDevice({MARKER: 1}), device, tenant.signer):
        assert MARKER not in repr(value)
    assert "PrivateKey" not in repr(tenant.signer)


def test_access_log_has_one_line_per_request(nagra: HeadEnd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    nagra.present(nagra.token(exp=1), x_correlation_id="call-1")
    (record,) = [record for record in caplog.records if record.name == "ags.request"]
    line = json.loads(JSONFormatter().format(record))
    assert line.pop("duration_ms") >= 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "process": os.getpid(),
        "version": __version__,
        "correlation_id": "call-1",
        "client_address": "127.0.0.1",
        "method": "POST",
        "route": "/ags/getSessionToken",
        "tenant": "nagra",
        "service": "Customer Auth Service",
        "kid": "nagra-key-1",
        "outcome": "refused",
        "reason": "token_expired",
        "status": 401,
    }
