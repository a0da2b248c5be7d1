"""Every bad input has one answer, and the tests look at all of it: status, headers, body."""

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


def whole(answer: Any) -> dict[str, Any]:
    """All that a caller can see of an answer."""
    return {"status": answer.status_code, **dict(answer.headers), "body": answer.content}


def refusal(
    status: int, code: int, reason: str, message: str, parameter: str | None = None, **headers: str
) -> dict[str, Any]:
    """All that a caller should see of a refusal."""
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
    return refusal(400, 40005, "body_malformed", f"The body is not a strict JSON object: {problem}.")


NOT_JSON = body_malformed("it is not well-formed JSON")
NOT_AN_OBJECT = body_malformed("it is another JSON value")
TOO_DEEP = body_malformed("it is nested deeper than 32 levels")
NOT_UTF_8 = body_malformed("it is not UTF-8")
TWICE = body_malformed("it has a duplicate member")
UNSTORABLE = body_malformed("it contains NUL or a lone surrogate")
SHAPE = refusal(
    400,
    40006,
    "parameters_malformed",
    'The member parameters must be an array of {"name": string, "value": string}.',
)
NAME = "OperatorAuthToken"
INVALID = "The value of the parameter is not a string of the declared length."


def invalid(parameter: str = NAME) -> dict[str, Any]:
    return refusal(400, 40010, "parameter_invalid", INVALID, parameter)


def one(name: Any, value: Any) -> dict[str, Any]:
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
    "a name that is a number": (one(1, "x"), SHAPE),
    "a name that is empty": (one("", "x"), SHAPE),
    "a name of 129 characters": (one("n" * 129, "x"), SHAPE),
    "a parameter without a value": ({"parameters": [{"name": NAME}]}, invalid()),
    "a value that is null": (one(NAME, None), invalid()),
    "a value that is a number": (one(NAME, 1), invalid()),
    "a value that is true": (one(NAME, True), invalid()),
    "a value that is an array": (one(NAME, ["x"]), invalid()),
    "a value that is an object": (one(NAME, {}), invalid()),
    "a value of 8,193 characters": (one(NAME, "x" * 8193), invalid()),
    "the same parameter twice": (
        {"parameters": [{"name": NAME, "value": "x"}, {"name": NAME, "value": "y"}]},
        refusal(400, 40008, "parameter_repeated", "The parameter is given twice.", NAME),
    ),
    "the same parameter in two spellings": (
        {"parameters": [{"name": NAME, "value": "x"}, {"name": NAME.lower(), "value": "y"}]},
        refusal(400, 40008, "parameter_repeated", "The parameter is given twice.", NAME.lower()),
    ),
    "an unknown parameter": (
        one("Username", "x"),
        refusal(
            400, 40007, "parameter_unknown", "The service declares no parameter of this name.", "Username"
        ),
    ),
    "a parameter missing": (
        {"parameters": []},
        refusal(400, 40009, "parameter_missing", "A mandatory parameter is missing.", NAME),
    ),
}


@pytest.mark.once
@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_body_that_is_not_what_discovery_declares(
    nagra: HeadEnd, body: Any, expected: dict[str, Any]
) -> None:
    assert whole(nagra.post(body, x_correlation_id=ID)) == expected


def test_a_value_of_the_full_length_is_read(nagra: HeadEnd) -> None:
    assert nagra.post(one(NAME, "x" * 8192)).status_code == 401


def test_names_are_matched_without_regard_to_case_and_unknown_members_are_ignored(nagra: HeadEnd) -> None:
    parameter = {"name": "OPERATORauthTOKEN", "value": nagra.token(), "type": "jwt"}
    answer = nagra.post({"version": 3, "parameters": [parameter], "deviceInformation": {"a": [1]}})
    assert answer.status_code == 200


TOO_LARGE = refusal(
    413,
    41300,
    "body_too_large",
    "The body is larger than 64 KiB, or a form of staff than 2.5 MiB or 1,000 fields.",
)
UNSUPPORTED = refusal(
    415,
    41500,
    "unsupported_media_type",
    "The body must be uncompressed application/json in UTF-8.",
)


@pytest.mark.parametrize("size", [64 * 1024 + 1, 2_700_000])
def test_a_body_that_is_too_large(nagra: HeadEnd, size: int) -> None:
    raw = b'{"parameters": "' + b"x" * size + b'"}'
    assert whole(nagra.post(raw, x_correlation_id=ID)) == TOO_LARGE


def test_a_body_of_64_kib_is_read(nagra: HeadEnd) -> None:
    text = json.dumps(one(NAME, nagra.token()))
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
def test_a_body_of_another_type(nagra: HeadEnd, content_type: str) -> None:
    raw = json.dumps(one(NAME, nagra.token())).encode()
    answer = nagra.post(raw, content_type=content_type, x_correlation_id=ID)
    assert whole(answer) == UNSUPPORTED


@pytest.mark.parametrize("path", ["/ags/getSessionToken", "/ags/signOn", "/ags/signOnWithSessionToken"])
@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded"])
def test_a_missing_body_is_missing_whatever_its_type(nagra: HeadEnd, path: str, content_type: str) -> None:
    headers = nagra.headers(x_correlation_id=ID)
    assert whole(nagra.client.generic("POST", path, b"", content_type, headers=headers)) == MISSING


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json"],
)
def test_json_in_utf_8_however_it_is_said(nagra: HeadEnd, content_type: str) -> None:
    assert nagra.post(one(NAME, nagra.token()), content_type=content_type).status_code == 200


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "GZIP", "identity, gzip"])
def test_a_compressed_body(nagra: HeadEnd, coding: str) -> None:
    answer = nagra.post(one(NAME, nagra.token()), content_encoding=coding, x_correlation_id=ID)
    assert whole(answer) == UNSUPPORTED


def missing(name: str) -> dict[str, Any]:
    return refusal(400, 40001, "header_missing", f"The header {name} is missing.")


def malformed(name: str) -> dict[str, Any]:
    return refusal(400, 40002, "header_invalid", f"The header {name} is not of the documented form.")


def repeated(name: str) -> dict[str, Any]:
    return refusal(400, 40003, "header_repeated", f"The header {name} is sent twice, or holds a comma.")


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
def test_a_header_that_is_missing_malformed_or_repeated(
    nagra: HeadEnd, headers: dict[str, str | None], expected: dict[str, Any]
) -> None:
    answer = nagra.present(nagra.token(), x_correlation_id=ID, **headers)
    assert whole(answer) == expected


def test_a_correlation_id_that_is_sent_twice_is_refused_under_a_new_one(nagra: HeadEnd) -> None:
    answer = nagra.present(nagra.token(), x_correlation_id="a,b")
    assert answer.status_code == 400
    assert answer.json()["reason"] == "header_repeated"
    assert answer.json()["correlationId"] == answer.headers["x-correlation-id"] != "a,b"


@pytest.mark.parametrize("given", ["a", "A-Z_a.z:0-9", "x" * 128])
def test_a_correlation_id_of_the_documented_form_is_echoed(nagra: HeadEnd, given: str) -> None:
    for answer in (nagra.discover(x_correlation_id=given), nagra.present("x", x_correlation_id=given)):
        assert answer.headers["x-correlation-id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\u00e4", "<script>", "a\tb", None])
def test_another_correlation_id_is_replaced(nagra: HeadEnd, given: str | None) -> None:
    first, second = (nagra.discover(x_correlation_id=given).headers["x-correlation-id"] for _ in range(2))
    assert len(first) == 36
    assert first != second


def test_the_default_tenant_stands_in_for_a_missing_header(nagra: HeadEnd, settings: Any) -> None:
    settings.AGS_DEFAULT_TENANT = "nagra"
    assert nagra.present(nagra.token(), nv_tenant_id=None).status_code == 200
    assert nagra.discover(nv_tenant_id=None).status_code == 200
    assert nagra.present(nagra.token(), nv_tenant_id="sunrise").status_code == 403


NOT_AUTHENTICATED = refusal(
    401, 40100, "not_authenticated", "What was presented proves nothing, or nothing any more."
)


@pytest.fixture
def unproven(nagra: HeadEnd, sunrise: HeadEnd) -> dict[str, tuple[str, str]]:
    """Tokens that prove nothing, each with the reason that the log should hold."""

    def of(kid: str, **fields: Any) -> str:
        head_end = HeadEnd("nagra", kid, bytes(range(7, 39)))
        if fields:
            add_key(head_end, **fields)
        return head_end.token()

    good = nagra.token()
    head, payload, signature = good.split(".")
    from datetime import UTC, datetime, timedelta

    now, hour = datetime.now(UTC), timedelta(hours=1)
    add_key(HeadEnd("nagra", "70646948-d6fb-4ce8-a433-52a14ee2fa0a", bytes(range(9, 41))))
    return {
        "an unknown kid": (of("nobody"), "key_unknown"),
        "a staged key": (of("staged", state="staged"), "key_not_in_force"),
        "a revoked key": (of("revoked", state="revoked"), "key_not_in_force"),
        "a key whose time is over": (of("late", not_after=now - hour), "key_not_in_force"),
        "a key whose time is to come": (of("early", not_before=now + hour), "key_not_in_force"),
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


def test_before_a_signature_is_proven_every_401_is_the_same_to_the_byte_and_the_log_tells_them_apart(
    nagra: HeadEnd, unproven: dict[str, tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for name, (token, reason) in unproven.items():
        caplog.clear()
        assert whole(nagra.present(token, x_correlation_id=ID)) == NOT_AUTHENTICATED, name
        assert reasons(caplog) == [reason], name


PROVEN = {
    "type": (
        {"typ": "DevAuthN"},
        40101,
        "type_mismatch",
        "The token is of another type: look at the claim typ.",
    ),
    "audience": (
        {"aud": "other"},
        40102,
        "audience_mismatch",
        "The token is meant for another audience: look at the claim aud.",
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
        "The token is not valid yet: look at the claim nbf.",
    ),
    "form": (
        {"OpfAccountId": "a\nb"},
        40106,
        "claim_invalid",
        "The token has a claim of the wrong form: OpfAccountId.",
    ),
}


@pytest.mark.parametrize(("claims", "code", "reason", "message"), PROVEN.values(), ids=PROVEN)
def test_once_a_signature_is_proven_the_precise_reason_is_told(
    nagra: HeadEnd, claims: dict[str, Any], code: int, reason: str, message: str
) -> None:
    answer = nagra.present(nagra.token(**claims), x_correlation_id=ID)
    assert whole(answer) == refusal(401, code, reason, message)


def test_a_signed_payload_that_is_no_strict_json(nagra: HeadEnd) -> None:
    import jwt

    for payload in (
        b'{"exp": 1e400}',
        b'{"exp": 1, "exp": 2}',
        rb'{"a": "\ud800"}',
        rb'{"a": "\u0000"}',
        b"[" * 990,
    ):
        token = jwt.api_jws.encode(payload, nagra.secret, "HS256", {"kid": nagra.kid})
        assert whole(nagra.present(token, x_correlation_id=ID)) == refusal(
            401, 40109, "payload_malformed", "The payload of the token is not a strict JSON object."
        )


def test_a_second_use_of_a_jti(nagra: HeadEnd) -> None:
    token = nagra.token(jti="once")
    assert nagra.present(token).status_code == 200
    again = nagra.present(token, x_correlation_id=ID)
    assert whole(again) == refusal(401, 40107, "replayed", "The token has been used before.")


def test_a_lifetime_that_is_too_long(nagra: HeadEnd) -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.settings["max_lifetime"] = 60
    service.save()
    assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == refusal(
        401, 40108, "lifetime_too_long", "The token expires later than the service allows."
    )


MISMATCH = refusal(403, 40301, "tenant_mismatch", "The token is for another tenant.")


def test_a_proven_token_for_another_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    """Header and key agree, the claim does not; header and claim agree, the key is another's."""
    token = nagra.token(OpfTenantId="sunrise")
    assert whole(nagra.present(token, x_correlation_id=ID)) == MISMATCH
    assert whole(nagra.present(token, x_correlation_id=ID, nv_tenant_id="sunrise")) == NOT_AUTHENTICATED


NOT_AVAILABLE = refusal(403, 40300, "service_not_available", "The tenant does not offer this service.")


def test_what_a_tenant_does_not_offer_is_one_uniform_403(
    nagra: HeadEnd, sunrise: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.registry import strategies
    from tenants.snapshot import snapshot

    def refused(reason: str, **headers: str) -> None:
        snapshot.invalidate("nagra")
        caplog.clear()
        answer = nagra.present(nagra.token(), x_correlation_id=ID, **headers)
        assert whole(answer) == NOT_AVAILABLE
        assert reasons(caplog) == [reason]

    caplog.set_level(logging.INFO)
    Service(
        tenant_id="sunrise", name="Theirs", strategy="operator_token", display_name="x", enabled=True
    ).save()
    refused("tenant_not_available", nv_tenant_id="nobody")
    refused("service_not_available", x_auth_service_id="Nothing")
    refused("service_not_available", x_auth_service_id=SERVICE.upper())
    refused("service_not_available", x_auth_service_id="Theirs")
    with monkeypatch.context() as patch:
        patch.setattr(strategies()["operator_token"], "endpoints", ())
        refused("endpoint_not_offered")
    service = Service.objects.for_tenant("nagra").get()
    service.enabled = False
    service.save()
    refused("service_not_available")
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()
    refused("tenant_not_available")


NOT_FOUND = refusal(404, 40400, "not_found", "There is nothing at this address.")
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


def ask(browser: Client, method: str, path: str) -> Any:
    """Send a request of any method; a file that comes back is read to its end, which closes it."""
    answer: Any = browser.generic(method, path, headers={"x-correlation-id": ID})
    if answer.streaming:
        b"".join(answer.streaming_content)
    return answer


@pytest.mark.once
@pytest.mark.parametrize("path", ALLOWED)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_an_address_does_not_answer(db: None, client: Client, path: str, method: str) -> None:
    allowed = ALLOWED[path]
    answer = ask(client, method, path)
    # Django takes "get" for GET; what matters is that nothing else slips through.
    if method.upper() in allowed.split(", "):
        assert answer.status_code != 405
        assert answer.status_code < 500
        return
    expected = refusal(
        405, 40500, "method_not_allowed", "The address does not answer this method.", Allow=allowed
    )
    if method == "HEAD":
        expected["body"] = b""
    seen = whole(answer)
    if path == "/docs/":  # has headers of a page beside those of a refusal
        seen = {name: seen[name] for name in expected}
    assert seen == expected


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
def test_an_address_where_there_is_nothing(
    db: None, client: Client, settings: Any, path: str, method: str, debug: bool
) -> None:
    settings.DEBUG = debug
    assert whole(ask(client, method, path)) == NOT_FOUND


HOST = refusal(400, 40004, "host_invalid", "The Host header names no host of this service.")


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
def test_a_host_that_is_not_ours(db: None, client: Client, host: str, method: str, path: str) -> None:
    answer = client.generic(method, path, headers={"host": host, "x-correlation-id": ID})
    assert whole(answer) == HOST


@pytest.mark.parametrize("path", ["/docs/", "/static/x"])
def test_a_host_that_is_not_ours_at_the_reference_of_the_api(db: None, client: Client, path: str) -> None:
    assert whole(client.get(path, headers={"host": "evil.example", "x-correlation-id": ID})) == HOST


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_whatever_host_they_ask(db: None, client: Client, path: str) -> None:
    assert client.get(path, headers={"host": "10.1.2.3:8000"}).status_code == 200


def test_a_crash_is_answered_in_json_and_logged_without_its_message(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from providers.registry import strategies

    def broken(*_: Any) -> None:
        raise ValueError("secret-marker-0815")

    monkeypatch.setattr(strategies()["operator_token"], "verify", broken)
    caplog.set_level(logging.DEBUG)
    answer = nagra.present(nagra.token(), x_correlation_id=ID)
    assert whole(answer) == refusal(500, 50000, "internal_error", "Something went wrong on our side.")
    (crash,) = [line for line in caplog.records if line.message == "crash"]
    assert vars(crash)["exception"] == "ValueError"
    assert "in broken" in vars(crash)["traceback"]
    assert vars(crash)["correlation_id"] == ID
    logged = "".join(str(vars(line)) for line in caplog.records)
    # The traceback shows the line of the test that raises; what was raised, it does not.
    assert "marker-0815" not in logged.replace('raise ValueError("secret-marker-0815")', "")
    assert reasons(caplog) == ["ValueError"]


@contextmanager
def database_away() -> Iterator[None]:
    """Let every statement fail as it does when nobody listens: Django's own hook, not a double."""

    def away(*_: Any) -> None:
        raise OperationalError("connection to server failed: marker-4711")

    with connection.execute_wrapper(away):
        yield


UNAVAILABLE = refusal(
    503, 50300, "unavailable", "The service is away for a moment. Try again.", Retry_After="1"
)


def test_a_database_that_is_away_is_a_503(nagra: HeadEnd) -> None:
    with database_away():
        assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE
        assert whole(nagra.discover(x_correlation_id=ID)) == UNAVAILABLE
        assert whole(nagra.client.get("/readyz", headers={"x-correlation-id": ID})) == UNAVAILABLE
        assert nagra.client.get("/healthz").status_code == 200


def test_a_database_that_goes_away_between_snapshot_and_insert_is_a_503(nagra: HeadEnd) -> None:
    nagra.discover()
    with database_away():
        assert nagra.discover().status_code == 200, "warm: no statement"
        assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


@pytest.mark.postgresql
@pytest.mark.parametrize(
    "trouble",
    ["SET TRANSACTION READ ONLY", "ALTER TABLE ags_sessions_sessiontoken RENAME TO not_migrated"],
    ids=["a standby", "not migrated"],
)
def test_a_database_that_answers_but_cannot_be_worked_with_is_a_503(nagra: HeadEnd, trouble: str) -> None:
    nagra.discover()
    with connection.cursor() as cursor:
        cursor.execute(trouble)
    assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


def test_a_configuration_that_will_not_stand_still_is_a_503(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes the tenant before each of the two attempts."""
    from django.db.models import F

    def changing(execute: Any, sql: str, *rest: Any) -> Any:
        if sql.lstrip().startswith("INSERT INTO ags_sessions"):
            Tenant.objects.filter(pk="nagra").update(version=F("version") + 1)
        return execute(sql, *rest)

    with connection.execute_wrapper(changing):
        assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == UNAVAILABLE


def test_a_key_that_cannot_be_decrypted_is_a_401_and_an_error_in_the_log(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    Key.unscoped.update(sealed_secret=b"\x01" + bytes(60))
    assert whole(nagra.present(nagra.token(), x_correlation_id=ID)) == NOT_AUTHENTICATED
    assert "key cannot be decrypted" in caplog.messages
    assert vars(next(line for line in caplog.records if "decrypted" in line.message))["kid"] == nagra.kid


# The pages of staff


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
def test_whoever_asks_for_a_page_of_staff_in_whatever_way_is_refused_in_one_shape(
    admin_client: Client, settings: Any, path: str, debug: bool
) -> None:
    settings.DEBUG = debug
    without_csrf_token = Client(enforce_csrf_checks=True)
    without_csrf_token.cookies = admin_client.cookies
    for browser in (Client(), admin_client, person("auditor"), without_csrf_token):
        for method in METHODS:
            answer = ask(browser, method, path)
            if answer.status_code < 400:
                continue
            is_page = path.startswith("/admin")
            content_type = "text/html; charset=utf-8" if is_page else "application/json"
            assert answer.headers["Content-Type"] == content_type
            assert answer.headers["Cache-Control"] == "no-store"
            assert ("Allow" in answer.headers) == (answer.status_code == 405)
            if method == "HEAD":
                assert answer.content == b""
            elif is_page:
                assert answer.headers["X-Frame-Options"] == "DENY"
                assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
                assert f">{ID}</code>" in answer.content.decode()
            else:
                told = answer.json()
                assert list(told) == ["code", "reason", "message", "correlationId"]
                assert (told["code"] // 100, told["correlationId"]) == (answer.status_code, ID)


@pytest.mark.parametrize(
    ("cookies", "status"),
    [
        ("{name}={key}", 200),
        ('{name}="{key}"', 200),
        ('other="\\"x"; {name}={key}; another=\\', 200),
        ('{name}="\\{octal}{rest}"', 302),  # it is left out: nobody is signed on
    ],
)
def test_a_cookie_with_a_backslash_is_left_out_on_the_pages_of_staff(
    admin_client: Client, settings: Any, cookies: str, status: int
) -> None:
    key = admin_client.cookies[settings.SESSION_COOKIE_NAME].value
    octal, rest = f"{ord(key[0]):03o}", key[1:]
    header = cookies.format(name=settings.SESSION_COOKIE_NAME, key=key, octal=octal, rest=rest)
    assert Client().get("/admin/", headers={"cookie": header}).status_code == status


def test_a_range_that_a_file_does_not_have_is_refused_in_json(client: Client) -> None:
    headers = {"range": "bytes=99999999-", "x-correlation-id": ID}
    answer = client.get("/static/admin/css/base.css", headers=headers)
    size = answer.headers["Content-Range"]
    assert size.startswith("bytes */")
    assert whole(answer) == refusal(
        416, 41600, "range_not_satisfiable", "The file has no such range of bytes.", Content_Range=size
    )
