"""Error responses of the API: status, headers and body."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test import Client

from tenants.models import Key, Service, Tenant
from tests.conftest import SERVICE, HeadEnd, add_key, person
from tests.providers.test_operator_token import SEED_SAMPLE

ID = "call-4711"


def full_response(response: Any) -> dict[str, Any]:
    """Return status, headers and body of a response."""
    return {"status": response.status_code, **dict(response.headers), "body": response.content}


def error_response(
    status: int, code: int, reason: str, message: str, parameter: str | None = None, **headers: str
) -> dict[str, Any]:
    """Return the expected status, headers and body of an error."""
    body: dict[str, Any] = {"code": code, "reason": reason, "message": message}
    if parameter is not None:
        body["parameter"] = parameter
    raw = json.dumps(body | {"correlationId": ID}, separators=(",", ":")).encode()
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ags"'
    return {
        "status": status,
        "Content-Type": "application/json",
        "Content-Length": str(len(raw)),
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "x-correlation-id": ID,
        "body": raw,
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }


def body_malformed(problem: str) -> dict[str, Any]:
    return error_response(400, 40005, "body_malformed", f"The body is not a strict JSON object: {problem}.")


NOT_JSON = body_malformed("it is not well-formed JSON")
NOT_AN_OBJECT = body_malformed("it is another JSON value")
TOO_DEEP = body_malformed("it is nested deeper than 32 levels")
NOT_UTF_8 = body_malformed("it is not UTF-8")
TWICE = body_malformed("it has a duplicate member")
UNSTORABLE = body_malformed("it contains NUL or a lone surrogate")
SHAPE = error_response(
    400,
    40006,
    "parameters_malformed",
    'The member parameters must be an array of {"name": string, "value": string}.',
)
NAME = "OperatorAuthToken"
INVALID = "The value of the parameter is not a string of the declared length."


def invalid(parameter: str = NAME) -> dict[str, Any]:
    return error_response(400, 40010, "parameter_invalid", INVALID, parameter)


def single_parameter(name: Any, value: Any) -> dict[str, Any]:
    return {"parameters": [{"name": name, "value": value}]}


MISSING = body_malformed("it is missing")
BODIES = {
    "nothing": (b"", MISSING),
    "nothing but a space": (b" ", NOT_JSON),
    "an array": (b"[]", NOT_AN_OBJECT),
    "a string": (b'"x"', NOT_AN_OBJECT),
    "a number": (b"1", NOT_AN_OBJECT),
    "null": (b"null", NOT_AN_OBJECT),
    "not JSON": (b"{", NOT_JSON),
    "a form": (b"a=b", NOT_JSON),
    "990 open brackets": (b"[" * 990, TOO_DEEP),
    "40,000 open brackets": (b"[" * 40_000, TOO_DEEP),
    "33 levels": (b'{"a":' * 33 + b"1" + b"}" * 33, TOO_DEEP),
    "NaN": (b'{"a": NaN}', body_malformed("NaN and Infinity are not JSON")),
    "Infinity": (b'{"a": -Infinity}', body_malformed("NaN and Infinity are not JSON")),
    "1e400": (b'{"a": 1e400}', body_malformed("a number is too large")),
    "an integer of 5,000 digits": (b'{"a": ' + b"1" * 5000 + b"}", NOT_JSON),
    "parameters twice": (b'{"parameters": [], "parameters": []}', TWICE),
    "a member twice, inside": (b'{"parameters": [{"name": "a", "name": "b", "value": ""}]}', TWICE),
    "UTF-16": ('{"parameters": []}'.encode("utf-16"), NOT_UTF_8),
    "Latin-1": ('{"ä": 1}'.encode("latin-1"), NOT_UTF_8),
    "an encoded surrogate": (b'{"a": "\xed\xa0\x80"}', NOT_UTF_8),
    "a byte order mark": ('\ufeff{"parameters": []}'.encode(), NOT_JSON),
    "an escaped NUL": (rb'{"a": "\u0000"}', UNSTORABLE),
    "half a surrogate pair": (rb'{"a": "\ud800"}', UNSTORABLE),
    "a NUL": (b'{"a": "\0"}', NOT_JSON),
    "no parameters": ({}, SHAPE),
    "parameters null": ({"parameters": None}, SHAPE),
    "parameters an object": ({"parameters": {NAME: "x"}}, SHAPE),
    "a parameter that is a string": ({"parameters": ["x"]}, SHAPE),
    "a parameter that is null": ({"parameters": [None]}, SHAPE),
    "a parameter without a name": ({"parameters": [{"value": "x"}]}, SHAPE),
    "a name that is a number": (single_parameter(1, "x"), SHAPE),
    "a name that is empty": (single_parameter("", "x"), SHAPE),
    "a name of 129 characters": (single_parameter("n" * 129, "x"), SHAPE),
    "a parameter without a value": ({"parameters": [{"name": NAME}]}, invalid()),
    "a value that is null": (single_parameter(NAME, None), invalid()),
    "a value that is a number": (single_parameter(NAME, 1), invalid()),
    "a value that is true": (single_parameter(NAME, True), invalid()),
    "a value that is an array": (single_parameter(NAME, ["x"]), invalid()),
    "a value that is an object": (single_parameter(NAME, {}), invalid()),
    "a value of 8,193 characters": (single_parameter(NAME, "x" * 8193), invalid()),
    "the same parameter twice": (
        {"parameters": [{"name": NAME, "value": "x"}, {"name": NAME, "value": "y"}]},
        error_response(400, 40008, "parameter_repeated", "The parameter occurs more than once.", NAME),
    ),
    "the same parameter in two spellings": (
        {"parameters": [{"name": NAME, "value": "x"}, {"name": NAME.lower(), "value": "y"}]},
        error_response(
            400, 40008, "parameter_repeated", "The parameter occurs more than once.", NAME.lower()
        ),
    ),
    "an unknown parameter": (
        single_parameter("Username", "x"),
        error_response(
            400,
            40007,
            "parameter_unknown",
            "The service does not declare a parameter with this name.",
            "Username",
        ),
    ),
    "a parameter missing": (
        {"parameters": []},
        error_response(400, 40009, "parameter_missing", "A mandatory parameter is missing.", NAME),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_invalid_body(nagra: HeadEnd, body: Any, expected: dict[str, Any]) -> None:
    assert full_response(nagra.post(body, x_correlation_id=ID)) == expected


def test_value_of_the_maximum_length_is_accepted(nagra: HeadEnd) -> None:
    assert nagra.post(single_parameter(NAME, "x" * 8192)).status_code == 401


def test_names_are_case_insensitive_and_unknown_members_are_ignored(nagra: HeadEnd) -> None:
    parameter = {"name": "OPERATORauthTOKEN", "value": nagra.token(), "type": "jwt"}
    response = nagra.post({"version": 3, "parameters": [parameter], "deviceInformation": {"a": [1]}})
    assert response.status_code == 200


TOO_LARGE = error_response(
    413,
    41300,
    "body_too_large",
    "The body exceeds 64 KiB, or a form of the admin exceeds 2.5 MiB or 1,000 fields.",
)
UNSUPPORTED = error_response(
    415,
    41500,
    "unsupported_media_type",
    "The body must be uncompressed application/json in UTF-8.",
)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2_700_000])
def test_large_body(nagra: HeadEnd, size: int) -> None:
    raw = b'{"parameters": "' + b"x" * size + b'"}'
    assert full_response(nagra.post(raw, x_correlation_id=ID)) == TOO_LARGE


def test_body_of_64_kib_is_accepted(nagra: HeadEnd) -> None:
    text = json.dumps(single_parameter(NAME, nagra.token()))
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
    raw = json.dumps(single_parameter(NAME, nagra.token())).encode()
    response = nagra.post(raw, content_type=content_type, x_correlation_id=ID)
    assert full_response(response) == UNSUPPORTED


@pytest.mark.parametrize("path", ["/ags/getSessionToken", "/ags/signOn", "/ags/signOnWithSessionToken"])
@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded"])
def test_missing_body_with_another_content_type(nagra: HeadEnd, path: str, content_type: str) -> None:
    headers = nagra.headers(x_correlation_id=ID)
    assert full_response(nagra.client.generic("POST", path, b"", content_type, headers=headers)) == MISSING


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json"],
)
def test_spellings_of_the_content_type(nagra: HeadEnd, content_type: str) -> None:
    assert nagra.post(single_parameter(NAME, nagra.token()), content_type=content_type).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_compressed_body(nagra: HeadEnd, coding: str) -> None:
    response = nagra.post(single_parameter(NAME, nagra.token()), content_encoding=coding, x_correlation_id=ID)
    assert full_response(response) == UNSUPPORTED


def missing(name: str) -> dict[str, Any]:
    return error_response(400, 40001, "header_missing", f"The header {name} is missing.")


def malformed(name: str) -> dict[str, Any]:
    return error_response(
        400, 40002, "header_invalid", f"The header {name} does not have the documented format."
    )


def repeated(name: str) -> dict[str, Any]:
    return error_response(
        400, 40003, "header_repeated", f"The header {name} occurs more than once or contains a comma."
    )


HEADERS = {
    "no tenant": ({"nv_tenant_id": None}, missing("nv-tenant-id")),
    "an empty tenant": ({"nv_tenant_id": ""}, missing("nv-tenant-id")),
    "a tenant with a space": ({"nv_tenant_id": "na gra"}, malformed("nv-tenant-id")),
    "a tenant with an umlaut": ({"nv_tenant_id": "n\u00e4gra"}, malformed("nv-tenant-id")),
    "a tenant of 65 characters": ({"nv_tenant_id": "n" * 65}, malformed("nv-tenant-id")),
    "two tenants": ({"nv_tenant_id": "nagra,sunrise"}, repeated("nv-tenant-id")),
    "the tenant twice": ({"nv_tenant_id": "nagra,nagra"}, repeated("nv-tenant-id")),
    "no service": ({"x_auth_service_id": None}, missing("x-auth-service-id")),
    "an empty service": ({"x_auth_service_id": ""}, missing("x-auth-service-id")),
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
    response = nagra.present(nagra.token(), x_correlation_id=ID, **headers)
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


NOT_AUTHENTICATED = error_response(
    401, 40100, "not_authenticated", "The credentials are invalid or have expired."
)


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


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(line)["reason"] for line in caplog.records if line.name == "ags.request"]


def test_invalid_tokens_have_one_uniform_response_and_different_reasons_in_the_log(
    nagra: HeadEnd, invalid_tokens: dict[str, tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, (token, reason) in invalid_tokens.items():
        caplog.clear()
        assert full_response(nagra.present(token, x_correlation_id=ID)) == NOT_AUTHENTICATED, name
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
    response = nagra.present(nagra.token(**claims), x_correlation_id=ID)
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
        assert full_response(nagra.present(token, x_correlation_id=ID)) == error_response(
            401, 40109, "payload_malformed", "The payload of the token is not a strict JSON object."
        )


def test_second_use_of_a_jti(nagra: HeadEnd) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    again = nagra.present(token, x_correlation_id=ID)
    assert full_response(again) == error_response(401, 40107, "replayed", "The token has already been used.")


def test_lifetime_that_is_too_long(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["max_lifetime"] = 60
    service.save()
    assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == error_response(
        401, 40108, "lifetime_too_long", "The token expires later than the service allows."
    )


MISMATCH = error_response(403, 40301, "tenant_mismatch", "The token is for another tenant.")


def test_signed_token_for_another_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """First the claim differs from header and key; then the key differs from header and claim."""
    token = nagra.token(OpfTenantId="sunrise")
    assert full_response(nagra.present(token, x_correlation_id=ID)) == MISMATCH
    assert (
        full_response(nagra.present(token, x_correlation_id=ID, nv_tenant_id="sunrise")) == NOT_AUTHENTICATED
    )


NOT_AVAILABLE = error_response(403, 40300, "service_not_available", "The tenant does not offer this service.")


def test_unavailable_services_have_one_uniform_response(
    nagra: HeadEnd, sunrise: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.registry import strategies
    from tenants.snapshot import snapshot

    def check(reason: str, **headers: str) -> None:
        snapshot.invalidate("nagra")
        caplog.clear()
        response = nagra.present(nagra.token(), x_correlation_id=ID, **headers)
        assert full_response(response) == NOT_AVAILABLE
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
    response: Any = browser.generic(method, path, headers={"x-correlation-id": ID})
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
    response = client.generic(method, path, headers={"host": host, "x-correlation-id": ID})
    assert full_response(response) == HOST


@pytest.mark.parametrize("path", ["/docs/", "/static/x"])
def test_invalid_host_of_staff_pages(db: None, client: Client, path: str) -> None:
    assert full_response(client.get(path, headers={"host": "evil.example", "x-correlation-id": ID})) == HOST


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
    response = nagra.present(nagra.token(), x_correlation_id=ID)
    assert full_response(response) == error_response(
        500, 50000, "internal_error", "An internal error occurred."
    )
    (line,) = [line for line in caplog.records if line.message == "crash"]
    assert vars(line)["exception"] == "ValueError"
    assert "in crash" in vars(line)["traceback"]
    assert vars(line)["correlation_id"] == ID
    logged = "".join(str(vars(line)) for line in caplog.records)
    # The traceback contains the source line of this test, but not the message of the exception.
    assert "marker-0815" not in logged.replace('raise ValueError("secret-marker-0815")', "")
    assert reasons(caplog) == ["ValueError"]


@contextmanager
def database_unavailable() -> Iterator[None]:
    """Make every statement fail as without a database server."""

    def fail(*_: Any) -> None:
        raise OperationalError("connection to server failed: marker-4711")

    with connection.execute_wrapper(fail):
        yield


UNAVAILABLE = error_response(
    503, 50300, "unavailable", "The service is temporarily unavailable. Retry later.", Retry_After="1"
)


def test_unavailable_database_is_503(nagra: HeadEnd) -> None:
    with database_unavailable():
        assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE
        assert full_response(nagra.discover(x_correlation_id=ID)) == UNAVAILABLE
        assert full_response(nagra.client.get("/readyz", headers={"x-correlation-id": ID})) == UNAVAILABLE
        assert nagra.client.get("/healthz").status_code == 200


def test_database_that_fails_after_the_snapshot_is_503(nagra: HeadEnd) -> None:
    nagra.discover()
    with database_unavailable():
        assert nagra.discover().status_code == 200, "a fresh snapshot needs no statement"
        assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


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
    assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


def test_tenant_that_changes_twice_is_503(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant changes before each of the two attempts."""
    from django.db.models import F

    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("INSERT INTO ags_sessions"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


def test_key_that_cannot_be_decrypted_is_401_and_logged(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    Key.unscoped.update(sealed_secret=b"\x01" + bytes(60))
    assert full_response(nagra.present(nagra.token(), x_correlation_id=ID)) == NOT_AUTHENTICATED
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
                assert f">{ID}</code>" in response.content.decode()
            else:
                body = response.json()
                assert list(body) == ["code", "reason", "message", "correlationId"]
                assert (body["code"] // 100, body["correlationId"]) == (response.status_code, ID)


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
    headers = {"range": "bytes=99999999-", "x-correlation-id": ID}
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
