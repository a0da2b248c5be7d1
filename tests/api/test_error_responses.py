"""Error responses of the API: tokens, services, methods, hosts, and an unavailable database."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from django.db import connection
from django.test import Client

from tenants.models import Key, Service, Tenant
from tests.support.clients import SERVICE, HeadEnd
from tests.support.database import database_unavailable
from tests.support.operators import add_key
from tests.support.responses import (
    CORRELATION_ID,
    METHODS,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    error_response,
    full_response,
    reasons,
    send,
)
from tests.support.tokens import SEED_SAMPLE


@pytest.fixture
def invalid_tokens(nagra: HeadEnd, sunrise: HeadEnd) -> dict[str, tuple[str, str]]:
    """Invalid tokens, each with the expected reason in the log."""

    def make_token(kid: str, **fields: Any) -> str:
        head_end = HeadEnd("nagra", kid, bytes(range(7, 39)))
        if fields:
            add_key(head_end, **fields)
        return head_end.token()

    valid = nagra.token()
    head, payload, signature = valid.split(".")
    from datetime import UTC, datetime, timedelta

    now, hour = datetime.now(UTC), timedelta(hours=1)
    add_key(HeadEnd("nagra", "70646948-d6fb-4ce8-a433-52a14ee2fa0a", bytes(range(9, 41))))
    return {
        "an unknown kid": (make_token("nobody"), "key_unknown"),
        "a staged key": (make_token("staged", state="staged"), "key_not_in_force"),
        "a revoked key": (make_token("revoked", state="revoked"), "key_not_in_force"),
        "a key whose time is over": (make_token("late", not_after=now - hour), "key_not_in_force"),
        "a key whose time is to come": (make_token("early", not_before=now + hour), "key_not_in_force"),
        "a bad signature": (f"{head}.{payload}.{'A' * 43}", "signature_invalid"),
        "another payload": (f"{head}.e30.{signature}", "signature_invalid"),
        "another algorithm": (
            HeadEnd("nagra", nagra.kid, bytes(range(1, 65)), "HS512").token(),
            "algorithm_mismatch",
        ),
        "alg none": (f"eyJhbGciOiJub25lIiwia2lkIjoibmFncmEta2V5LTEifQ.{payload}.AAAA", "algorithm_mismatch"),
        "garbage": ("garbage", "malformed"),
        "nothing": ("", "malformed"),
        "no signature": (f"{head}.{payload}.", "malformed"),
        "a forbidden header member": (nagra.token(headers={"crit": ["exp"]}), "header_member_forbidden"),
        "the key of another operator": (sunrise.token(), "key_unknown"),
        "the vendor's own sample": (SEED_SAMPLE, "signature_invalid"),
    }


def test_invalid_tokens_have_one_uniform_response_and_different_reasons_in_the_log(
    nagra: HeadEnd, invalid_tokens: dict[str, tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, (token, reason) in invalid_tokens.items():
        caplog.clear()
        assert full_response(nagra.present(token, x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED, name
        assert reasons(caplog) == [reason], name


AUTHENTICATED = {
    "type": (
        {"typ": "DevAuthN"},
        40101,
        "type_mismatch",
        "The token has another type. Check the claim typ.",
    ),
    "audience": (
        {"aud": "other"},
        40102,
        "audience_mismatch",
        "The token is for another audience. Check the claim aud.",
    ),
    "missing": (
        {"OpfAccountId": None},
        40103,
        "claim_missing",
        "The token lacks the claim OpfAccountId.",
    ),
    "expired": ({"exp": 1_735_084_800}, 40104, "token_expired", "The token has expired."),
    "early": (
        {"nbf": int(time.time()) + 9000},
        40105,
        "token_not_yet_valid",
        "The token is not valid yet. Check the claim nbf.",
    ),
    "form": (
        {"OpfAccountId": "a\nb"},
        40106,
        "claim_invalid",
        "The claim OpfAccountId of the token has an invalid value.",
    ),
}


@pytest.mark.parametrize(("claims", "code", "reason", "message"), AUTHENTICATED.values(), ids=AUTHENTICATED)
def test_signed_but_invalid_tokens_have_a_precise_reason(
    nagra: HeadEnd, claims: dict[str, Any], code: int, reason: str, message: str
) -> None:
    response = nagra.present(nagra.token(**claims), x_correlation_id=CORRELATION_ID)
    assert full_response(response) == error_response(401, code, reason, message)


def test_signed_payload_that_is_not_strict_json(nagra: HeadEnd) -> None:
    import jwt

    for payload in (
        b'{"exp": 1e400}',
        b'{"exp": 1, "exp": 2}',
        rb'{"a": "\ud800"}',
        rb'{"a": "\u0000"}',
        b"[" * 990,
    ):
        token = jwt.api_jws.encode(payload, nagra.secret, "HS256", {"kid": nagra.kid})
        assert full_response(nagra.present(token, x_correlation_id=CORRELATION_ID)) == error_response(
            401, 40109, "payload_malformed", "The payload of the token is not a strict JSON object."
        )


def test_second_use_of_a_jti(nagra: HeadEnd) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    again = nagra.present(token, x_correlation_id=CORRELATION_ID)
    assert full_response(again) == error_response(401, 40107, "replayed", "The token has already been used.")


def test_lifetime_that_is_too_long(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["max_lifetime"] = 60
    service.save()
    assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == error_response(
        401, 40108, "lifetime_too_long", "The token expires later than the service allows."
    )


MISMATCH = error_response(403, 40301, "tenant_mismatch", "The token is for another tenant.")


def test_signed_token_for_another_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """First the claim differs from header and key; then the key differs from header and claim."""
    token = nagra.token(OpfTenantId="sunrise")
    assert full_response(nagra.present(token, x_correlation_id=CORRELATION_ID)) == MISMATCH
    assert (
        full_response(nagra.present(token, x_correlation_id=CORRELATION_ID, nv_tenant_id="sunrise"))
        == NOT_AUTHENTICATED
    )


def test_unavailable_services_have_one_uniform_response(
    nagra: HeadEnd, sunrise: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.registry import strategies
    from tenants.snapshot import snapshot

    def check(reason: str, **headers: str) -> None:
        snapshot.invalidate("nagra")
        caplog.clear()
        response = nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID, **headers)
        assert full_response(response) == SERVICE_NOT_AVAILABLE
        assert reasons(caplog) == [reason]

    caplog.set_level(logging.INFO)
    Service(
        tenant_id="sunrise", name="Theirs", strategy="operator_token", display_name="x", enabled=True
    ).save()
    check("tenant_not_available", nv_tenant_id="nobody")
    check("service_not_available", x_auth_service_id="Nothing")
    check("service_not_available", x_auth_service_id=SERVICE.upper())
    check("service_not_available", x_auth_service_id="Theirs")
    with monkeypatch.context() as patch:
        patch.setattr(strategies()["operator_token"], "endpoints", ())
        check("endpoint_not_offered")
    service = Service.objects.for_tenant("nagra").get()
    service.enabled = False
    service.save()
    check("service_not_available")
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    check("tenant_not_available")


NOT_FOUND = error_response(404, 40400, "not_found", "There is no resource at this URL.")
ALLOWED = {
    "/ags/servicediscovery": "GET, HEAD",
    "/ags/getSessionToken": "POST",
    "/ags/signOnWithSessionToken": "POST",
    "/ags/signOut": "POST",
    "/ias/v3/token/actions/refresh": "POST",
    "/oauth/introspect": "POST",
    "/oauth/revoke": "POST",
    "/.well-known/jwks.json": "GET, HEAD",
    "/healthz": "GET, HEAD",
    "/readyz": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    "/docs": "GET, HEAD",
    "/docs/": "GET, HEAD",
    "/static/admin/css/base.css": "GET, HEAD",
}


@pytest.mark.once
@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", METHODS)
def test_unsupported_method(db: None, client: Client, path: str, method: str) -> None:
    allowed = ALLOWED[path]
    response = send(client, method, path)
    # Django treats "get" as GET.
    if method.upper() in allowed.split(", "):
        assert response.status_code != 405
        assert response.status_code < 500
        return
    expected = error_response(
        405, 40500, "method_not_allowed", "This URL does not support the method.", Allow=allowed
    )
    if method == "HEAD":
        expected["body"] = b""
    actual = full_response(response)
    if path == "/docs/":  # also has headers of a page
        actual = {name: actual[name] for name in expected}
    assert actual == expected


@pytest.mark.once
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ags",
        "/ags/",
        "/ags/getSessionToken/",
        "/ags/getsessiontoken",
        "/ags//getSessionToken",
        "/ags/getSessionToken.json",
        "/ags/signon",
        "/metrics",
        "/favicon.ico",
        "/.env",
        "/%00",
        "/%ff",
        "/adminx",
        "/static/",
        "/static/nothing.css",
        "/docs/nothing",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("debug", [False, True])
def test_unknown_url(db: None, client: Client, settings: Any, path: str, method: str, debug: bool) -> None:
    settings.DEBUG = debug
    assert full_response(send(client, method, path)) == NOT_FOUND


HOST = error_response(400, 40004, "host_invalid", "The Host header does not name a host of this service.")


@pytest.mark.once
@pytest.mark.parametrize(
    "host", ["evil.example", "a b", "127.0.0.1:x", "localhost@evil.example", "", "a,b", "[::1"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/ags/servicediscovery"),
        ("POST", "/ags/getSessionToken"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
    ],
)
def test_invalid_host(db: None, client: Client, host: str, method: str, path: str) -> None:
    response = client.generic(method, path, headers={"host": host, "x-correlation-id": CORRELATION_ID})
    assert full_response(response) == HOST


@pytest.mark.parametrize("path", ["/docs/", "/static/x"])
def test_invalid_host_of_staff_pages(db: None, client: Client, path: str) -> None:
    assert (
        full_response(client.get(path, headers={"host": "evil.example", "x-correlation-id": CORRELATION_ID}))
        == HOST
    )


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_accept_any_host(db: None, client: Client, path: str) -> None:
    assert client.get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200


def test_unexpected_exception_is_logged_without_its_message(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.registry import strategies

    def crash(*_: Any) -> None:
        raise ValueError("secret-marker-0815")

    monkeypatch.setattr(strategies()["operator_token"], "verify", crash)
    caplog.set_level(logging.DEBUG)
    response = nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)
    assert full_response(response) == error_response(
        500, 50000, "internal_error", "An internal error occurred."
    )
    (line,) = [line for line in caplog.records if line.message == "crash"]
    assert vars(line)["exception"] == "ValueError"
    assert "in crash" in vars(line)["traceback"]
    assert vars(line)["correlation_id"] == CORRELATION_ID
    logged = "".join(str(vars(line)) for line in caplog.records)
    # The traceback contains the source line of this test, but not the message of the exception.
    assert "marker-0815" not in logged.replace('raise ValueError("secret-marker-0815")', "")
    assert reasons(caplog) == ["ValueError"]


def test_unavailable_database_is_503(nagra: HeadEnd) -> None:
    with database_unavailable():
        assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
        assert full_response(nagra.discover(x_correlation_id=CORRELATION_ID)) == UNAVAILABLE
        assert (
            full_response(nagra.client.get("/readyz", headers={"x-correlation-id": CORRELATION_ID}))
            == UNAVAILABLE
        )
        assert nagra.client.get("/healthz").status_code == 200


def test_database_that_fails_after_the_snapshot_is_503(nagra: HeadEnd) -> None:
    nagra.discover()
    with database_unavailable():
        assert nagra.discover().status_code == 200, "a fresh snapshot needs no statement"
        assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == UNAVAILABLE


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "trouble",
    ["SET TRANSACTION READ ONLY", "ALTER TABLE ags_sessions_sessiontoken RENAME TO not_migrated"],
    ids=["a standby", "not migrated"],
)
def test_database_that_is_not_ready_is_503(nagra: HeadEnd, trouble: str) -> None:
    nagra.discover()
    with connection.cursor() as cursor:
        cursor.execute(trouble)
    assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == UNAVAILABLE


def test_tenant_that_changes_twice_is_503(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant changes before each of the two attempts."""
    from django.db.models import F

    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("INSERT INTO ags_sessions"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == UNAVAILABLE


def test_key_that_cannot_be_decrypted_is_401_and_logged(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    Key.unscoped.update(sealed_secret=b"\x01" + bytes(60))
    assert full_response(nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID)) == NOT_AUTHENTICATED
    assert "key cannot be decrypted" in caplog.messages
    assert vars(next(line for line in caplog.records if "decrypted" in line.message))["kid"] == nagra.kid
