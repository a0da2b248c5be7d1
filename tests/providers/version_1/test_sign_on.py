"""Subscribers sign on with providers made for version 1, and are refused, as with any other."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import pytest

from tenants.models import Service
from tests.support.clients import ClientApp
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.signer import signer

DAY = "2099-12-31"


def offer(strategy: str, **settings: Any) -> None:
    Service(
        tenant_id="nagra", name="Old", strategy=strategy, display_name="x", enabled=True, settings=settings
    ).save()


def sign_on(app: ClientApp, **parameters: str) -> tuple[int, str]:
    """The status, with the account or the reason."""
    body = {
        "parameters": [{"name": name, "value": value} for name, value in parameters.items()],
        "deviceInformation": {"deviceType": "Android"},
    }
    answer = app.call("/ags/signOn", body, x_auth_service_id="Old")
    told = answer.json()
    return answer.status_code, told["accountId"] if answer.status_code == 201 else told["reason"]


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"]


def test_a_voucher_signs_on_once(app: ClientApp, caplog: pytest.LogCaptureFixture) -> None:
    offer("voucher", kid=app.head_end.kid)
    code = hmac.new(app.head_end.secret, f"{DAY} account-1".encode(), hashlib.sha256).hexdigest()
    voucher = {"Account": "account-1", "Until": DAY, "Code": code}
    assert sign_on(app, **voucher) == (201, "account-1")
    assert sign_on(app, **voucher) == (401, "replayed")
    assert sign_on(app, **voucher | {"Account": "account-2"}) == (401, "not_authenticated")
    assert reasons(caplog)[1:] == ["replayed", "credential_unknown"]


def test_a_user_name_and_a_password_sign_on(app: ClientApp, caplog: pytest.LogCaptureFixture) -> None:
    credentials = {"Username": "someone", "Password": "correct horse"}
    with HTTPSServer() as server:
        offer("line", url=f"{server.url}/login", api_key="k" * 20, **server.settings)
        server.replies["/login"] = as_json({"account": "account-1"})
        assert sign_on(app, **credentials) == (201, "account-1")
        server.replies["/login"] = Reply(404)
        assert sign_on(app, **credentials) == (401, "not_authenticated")
        server.replies["/login"] = Reply(401)
        assert sign_on(app, **credentials) == (503, "unavailable")
    assert reasons(caplog)[1:] == ["credential_unknown", "upstream_refuses_us"]


def test_a_signed_jwt_signs_on_by_the_key_set_of_the_operator(
    app: ClientApp, caplog: pytest.LogCaptureFixture
) -> None:
    key = signer("ES256")
    claims = {"iss": "partner", "aud": "ags", "sub": "account-1", "exp": int(time.time()) + 300}
    with HTTPSServer() as server:
        server.replies["/keys"] = as_json({"keys": [key.jwk()]})
        where = {"key_set_address": f"{server.url}/keys", **server.settings}
        offer("partner_jwt", issuer="partner", audience="ags", **where)
        assert sign_on(app, Token=key.token(claims)) == (201, "account-1")
        assert sign_on(app, Token=key.token(claims | {"iss": "other"})) == (401, "issuer_mismatch")
        assert sign_on(app, Token=key.token(claims, kid="other")) == (401, "not_authenticated")
    assert reasons(caplog)[1:] == ["issuer_mismatch", "key_unknown"]
