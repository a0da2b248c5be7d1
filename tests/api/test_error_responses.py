"""Error responses of the API: status, headers and body."""

from __future__ import annotations

import json
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
    BODY_MISSING,
    BODY_TOO_LARGE,
    CORRELATION_ID,
    INVALID_BODIES,
    NOT_AUTHENTICATED,
    PARAMETER,
    SERVICE_NOT_AVAILABLE,
    UNAVAILABLE,
    error_response,
    full_response,
    header_missing,
    reasons,
    single_parameter,
)
from tests.support.staff import person
from tests.support.tokens import SEED_SAMPLE


@pytest.mark.once
@pytest.mark.parametrize(("body", "expected"), INVALID_BODIES.values(), ids=INVALID_BODIES)
def test_invalid_body(nagra: HeadEnd, body: Any, expected: dict[str, Any]) -> None:
    assert full_response(nagra.post(body, x_correlation_id=CORRELATION_ID)) == expected


def test_value_of_the_maximum_length_is_accepted(nagra: HeadEnd) -> None:
    assert nagra.post(single_parameter(PARAMETER, "x" * 8192)).status_code == 401


def test_names_are_case_insensitive_and_unknown_members_are_ignored(nagra: HeadEnd) -> None:
    parameter = {"name": "OPERATORauthTOKEN", "value": nagra.token(), "type": "jwt"}
    response = nagra.post({"version": 3, "parameters": [parameter], "deviceInformation": {"a": [1]}})
    assert response.status_code == 200


UNSUPPORTED = error_response(
    415,
    41500,
    "unsupported_media_type",
    "The body must be uncompressed application/json in UTF-8.",
)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2_700_000])
def test_large_body(nagra: HeadEnd, size: int) -> None:
    raw = b'{"parameters": "' + b"x" * size + b'"}'
    assert full_response(nagra.post(raw, x_correlation_id=CORRELATION_ID)) == BODY_TOO_LARGE


def test_body_of_64_kib_is_accepted(nagra: HeadEnd) -> None:
    text = json.dumps(single_parameter(PARAMETER, nagra.token()))
    assert nagra.post(text + " " * (64 * 1024 - len(text))).status_code == 200


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/json",
        "application/json; charset=utf-16",
        "application/json; charset=bogus",
        "application/json; charset=iso-8859-1",
        "application/json,application/json",
        "application/jsonx",
        "application/vnd.api+json",
        "*/*",
        "json",
        "",
    ],
)
def test_body_of_another_type(nagra: HeadEnd, content_type: str) -> None:
    raw = json.dumps(single_parameter(PARAMETER, nagra.token())).encode()
    response = nagra.post(raw, content_type=content_type, x_correlation_id=CORRELATION_ID)
    assert full_response(response) == UNSUPPORTED


@pytest.mark.parametrize("path", ["/ags/getSessionToken", "/ags/signOn", "/ags/signOnWithSessionToken"])
@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded"])
def test_missing_body_with_another_content_type(nagra: HeadEnd, path: str, content_type: str) -> None:
    headers = nagra.headers(x_correlation_id=CORRELATION_ID)
    assert (
        full_response(nagra.client.generic("POST", path, b"", content_type, headers=headers)) == BODY_MISSING
    )


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json"],
)
def test_spellings_of_the_content_type(nagra: HeadEnd, content_type: str) -> None:
    assert (
        nagra.post(single_parameter(PARAMETER, nagra.token()), content_type=content_type).status_code == 200
    )


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_compressed_body(nagra: HeadEnd, coding: str) -> None:
    response = nagra.post(
        single_parameter(PARAMETER, nagra.token()), content_encoding=coding, x_correlation_id=CORRELATION_ID
    )
    assert full_response(response) == UNSUPPORTED


def malformed(name: str) -> dict[str, Any]:
    return error_response(
        400, 40002, "header_invalid", f"The header {name} does not have the documented format."
    )


def repeated(name: str) -> dict[str, Any]:
    return error_response(
        400, 40003, "header_repeated", f"The header {name} occurs more than once or contains a comma."
    )


HEADERS = {
    "no tenant": ({"nv_tenant_id": None}, header_missing("nv-tenant-id")),
    "an empty tenant": ({"nv_tenant_id": ""}, header_missing("nv-tenant-id")),
    "a tenant with a space": ({"nv_tenant_id": "na gra"}, malformed("nv-tenant-id")),
    "a tenant with an umlaut": ({"nv_tenant_id": "n\u00e4gra"}, malformed("nv-tenant-id")),
    "a tenant of 65 characters": ({"nv_tenant_id": "n" * 65}, malformed("nv-tenant-id")),
    "two tenants": ({"nv_tenant_id": "nagra,sunrise"}, repeated("nv-tenant-id")),
    "the tenant twice": ({"nv_tenant_id": "nagra,nagra"}, repeated("nv-tenant-id")),
    "no service": ({"x_auth_service_id": None}, header_missing("x-auth-service-id")),
    "an empty service": ({"x_auth_service_id": ""}, header_missing("x-auth-service-id")),
    "a service of 129 characters": ({"x_auth_service_id": "s" * 129}, malformed("x-auth-service-id")),
    "a service with an umlaut": ({"x_auth_service_id": "Dienst \u00fc"}, malformed("x-auth-service-id")),
    "a service with a NUL": ({"x_auth_service_id": "S\0"}, malformed("x-auth-service-id")),
    "two services": ({"x_auth_service_id": f"{SERVICE},{SERVICE}"}, repeated("x-auth-service-id")),
    "two traces": ({"traceparent": "00-a,00-b"}, repeated("traceparent")),
}


@pytest.mark.once
@pytest.mark.parametrize(("headers", "expected"), HEADERS.values(), ids=HEADERS)
def test_missing_malformed_or_repeated_header(
    nagra: HeadEnd, headers: dict[str, str | None], expected: dict[str, Any]
) -> None:
    response = nagra.present(nagra.token(), x_correlation_id=CORRELATION_ID, **headers)
    assert full_response(response) == expected


def test_repeated_correlation_id_is_rejected_and_replaced(nagra: HeadEnd) -> None:
    response = nagra.present(nagra.token(), x_correlation_id="a,b")
    assert response.status_code == 400
    assert response.json()["reason"] == "header_repeated"
    assert response.json()["correlationId"] == response.headers["x-correlation-id"] != "a,b"


@pytest.mark.parametrize("value", ["a", "A-Z_a.z:0-9", "x" * 128])
def test_valid_correlation_id_is_returned(nagra: HeadEnd, value: str) -> None:
    for response in (nagra.discover(x_correlation_id=value), nagra.present("x", x_correlation_id=value)):
        assert response.headers["x-correlation-id"] == value


@pytest.mark.parametrize("value", ["", "x" * 129, "a b", "a\u00e4", "<script>", "a\tb", None])
def test_invalid_correlation_id_is_replaced(nagra: HeadEnd, value: str | None) -> None:
    first, second = (nagra.discover(x_correlation_id=value).headers["x-correlation-id"] for _ in range(2))
    assert len(first) == 36
    assert first != second


def test_default_tenant_replaces_a_missing_header(nagra: HeadEnd, settings: Any) -> None:
    settings.AGS_DEFAULT_TENANT = "nagra"
    assert nagra.present(nagra.token(), nv_tenant_id=None).status_code == 200
    assert nagra.discover(nv_tenant_id=None).status_code == 200
    assert nagra.present(nagra.token(), nv_tenant_id="sunrise").status_code == 403


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
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW", "get"]


def send(browser: Client, method: str, path: str) -> Any:
    """Send a request with any method. A file in the response is read to its end, which closes it."""
    response: Any = browser.generic(method, path, headers={"x-correlation-id": CORRELATION_ID})
    if response.streaming:
        b"".join(response.streaming_content)
    return response


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


# Staff pages


STAFF_PATHS = [
    "/admin",
    "/admin/",
    "/admin/login/",
    "/admin/logout/",
    "/admin/nothing/",
    "/admin/nothing",
    "/admin/jsi18n/",
    "/admin/password_change/",
    "/admin/autocomplete/",
    "/admin/auth/user/1/password/",
    "/admin/tenants/tenant/",
    "/admin/tenants/tenant/?name=x",
    "/admin/tenants/tenant/add/",
    "/admin/tenants/tenant/nobody/change/",
    "/admin/tenants/service/add/",
    "/admin/tenants/key/1/history/",
    "/admin/%00",
    "/docs/",
    "/docs/nothing",
    "/static/",
    "/static/nothing",
    "/static/admin/css/base.css",
]


@pytest.mark.once
@pytest.mark.parametrize("path", STAFF_PATHS)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_staff_pages(admin_client: Client, settings: Any, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    without_csrf_token = Client(enforce_csrf_checks=True)
    without_csrf_token.cookies = admin_client.cookies
    for browser in (Client(), admin_client, person("auditor"), without_csrf_token):
        for method in METHODS:
            response = send(browser, method, path)
            if response.status_code < 400:
                continue
            is_page = path.startswith("/admin")
            content_type = "text/html; charset=utf-8" if is_page else "application/json"
            assert response.headers["Content-Type"] == content_type
            assert response.headers["Cache-Control"] == "no-store"
            assert ("Allow" in response.headers) == (response.status_code == 405)
            if method == "HEAD":
                assert response.content == b""
            elif is_page:
                assert response.headers["X-Frame-Options"] == "DENY"
                assert "default-src 'self'" in response.headers["Content-Security-Policy"]
                assert f">{CORRELATION_ID}</code>" in response.content.decode()
            else:
                body = response.json()
                assert list(body) == ["code", "reason", "message", "correlationId"]
                assert (body["code"] // 100, body["correlationId"]) == (response.status_code, CORRELATION_ID)


@pytest.mark.parametrize(
    ("cookies", "status"),
    [
        ("{name}={key}", 200),
        ('{name}="{key}"', 200),
        ('other="\\"x"; {name}={key}; another=\\', 200),
        ('{name}="\\{octal}{rest}"', 302),  # the cookie is removed: not logged in
    ],
)
def test_staff_pages_ignore_cookies_with_a_backslash(
    admin_client: Client, settings: Any, cookies: str, status: int
) -> None:
    key = admin_client.cookies[settings.SESSION_COOKIE_NAME].value
    octal, rest = f"{ord(key[0]):03o}", key[1:]
    header = cookies.format(name=settings.SESSION_COOKIE_NAME, key=key, octal=octal, rest=rest)
    assert Client().get("/admin/", headers={"cookie": header}).status_code == status


def test_unsatisfiable_range(client: Client) -> None:
    headers = {"range": "bytes=99999999-", "x-correlation-id": CORRELATION_ID}
    response = client.get("/static/admin/css/base.css", headers=headers)
    size = response.headers["Content-Range"]
    assert size.startswith("bytes */")
    assert full_response(response) == error_response(
        416,
        41600,
        "range_not_satisfiable",
        "The file does not contain the requested range of bytes.",
        Content_Range=size,
    )
