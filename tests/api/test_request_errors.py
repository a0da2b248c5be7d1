"""Errors of requests: body, content type and headers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.clients import SERVICE, HeadEnd
from tests.support.responses import (
    BODY_MISSING,
    BODY_TOO_LARGE,
    CORRELATION_ID,
    INVALID_BODIES,
    PARAMETER,
    error_response,
    full_response,
    header_missing,
    single_parameter,
)


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
