"""Authentication of resource servers, and invalid forms."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tenants.models import ResourceServer
from tenants.snapshot import snapshot
from tests.support.clients import Platform
from tests.support.database import database_unavailable
from tests.support.responses import BODY_TOO_LARGE, CORRELATION_ID, UNAVAILABLE, error_response, full_response

PATHS = ("/oauth/introspect", "/oauth/revoke")


def oauth_error(
    status: int, code: int, reason: str, message: str, error: str, **headers: str
) -> dict[str, Any]:
    """Return an error with the members of RFC 6749, section 5.2, which restricts the characters."""
    assert re.fullmatch(r"[ !#-\[\]-~]+", message)
    expected = error_response(status, code, reason, message, **headers)
    oauth = {"error": error, "error_description": message}
    body = {"code": code, "reason": reason, "message": message, **oauth, "correlationId": CORRELATION_ID}
    raw = json.dumps(body, separators=(",", ":")).encode()
    return {**expected, **headers, "body": raw, "Content-Length": str(len(raw))}


MALFORMED = oauth_error(
    400, 40012, "form_malformed", "The body must be a form with one token.", "invalid_request"
)
FORM_EXPECTED = oauth_error(
    415, 41501, "form_expected", "The body must be an uncompressed form in UTF-8.", "invalid_request"
)
TWO_METHODS = oauth_error(
    400,
    40013,
    "client_authentication_repeated",
    "The client must authenticate with either the Authorization header or client_secret in the form.",
    "invalid_request",
)
INVALID_CLIENT = oauth_error(
    401,
    40111,
    "client_not_authenticated",
    "The client ID or the client secret is invalid.",
    "invalid_client",
) | {"WWW-Authenticate": 'Basic realm="ags", charset="UTF-8"'}


# Client authentication


@pytest.mark.parametrize("path", PATHS)
def test_credentials_in_the_header_or_in_the_form(
    server: Platform, tokens: dict[str, Any], path: str
) -> None:
    in_form = {"client_id": server.client_id, "client_secret": server.secret}
    token = {"token": tokens["access_token"]}
    encoded = "".join(f"%{byte:02X}" for byte in server.secret.encode())
    form_encoded = base64.b64encode(f"{server.client_id}:{encoded}".encode()).decode()
    for form, header in (
        (token, server.basic),
        (token, server.basic.replace("Basic", "bAsIc")),
        (token, f"Basic {form_encoded}"),
        (token | in_form, None),
        (token | {"client_id": server.client_id}, server.basic),
        (token | {"client_id": server.client_id, "client_secret": ""}, server.basic),
    ):
        assert server.post(path, form, authorization=header).status_code == 200


def basic(text: str | bytes) -> str:
    return "Basic " + base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def wrong_credentials(server: Platform) -> dict[str, tuple[str | None, dict[str, str]]]:
    """Return pairs of an Authorization header and additional form fields."""
    good = {"client_id": server.client_id, "client_secret": server.secret}
    return {
        "none": (None, {}),
        "an empty header": ("", {}),
        "another secret": (basic(f"{server.client_id}:{server.secret}x"), {}),
        "an empty secret": (basic(f"{server.client_id}:"), {}),
        "no secret": (basic(server.client_id), {}),
        "an unknown client": (basic(f"nagra~unknown:{server.secret}"), {}),
        "a client of an unknown tenant": (basic(f"nobody~x:{server.secret}"), {}),
        "a client without a tenant": (basic(f"x:{server.secret}"), {}),
        "no client": (basic(f":{server.secret}"), {}),
        "a NUL": (basic(f"nagra~\0:{server.secret}"), {}),
        "another spelling": (basic(f"{server.client_id.upper()}:{server.secret}"), {}),
        "no base64": ("Basic !", {}),
        "half of base64": ("Basic YQ=", {}),
        "base64 of no UTF-8": (basic(b"\xff:\xff"), {}),
        "a bad percent-encoding": (basic(f"{server.client_id}:%ff%zz"), {}),
        "the scheme alone": ("Basic", {}),
        "another scheme": (server.basic.replace("Basic", "Bearer"), {}),
        "header, and another id in the form": (server.basic, {"client_id": f"{server.client_id}x"}),
        "another scheme, and an id in the form": ("Bearer x", {"client_id": server.client_id}),
        "another secret in the form": (None, good | {"client_secret": "x"}),
        "the id alone in the form": (None, {"client_id": server.client_id}),
        "the secret alone in the form": (None, {"client_secret": server.secret}),
    }


@pytest.mark.parametrize("path", PATHS)
def test_invalid_credentials_have_one_uniform_response(
    server: Platform, tokens: dict[str, Any], path: str
) -> None:
    for name, (header, members) in wrong_credentials(server).items():
        for token in (tokens["access_token"], "unknown"):
            response = server.post(
                path, {"token": token, **members}, authorization=header, x_correlation_id=CORRELATION_ID
            )
            assert full_response(response) == INVALID_CLIENT, name
    assert server.is_active(tokens["access_token"]), "the token was revoked"


@pytest.mark.parametrize("path", PATHS)
def test_two_authentication_methods_are_rejected(server: Platform, path: str) -> None:
    good = {"client_id": server.client_id, "client_secret": server.secret}
    wrong = basic(f"{server.client_id}:wrong")
    for header in (server.basic, wrong, basic("nobody~x:y"), "Basic !", "Bearer x"):
        for members in (good, good | {"client_secret": "wrong"}, {"client_secret": "x"}):
            response = server.post(
                path, {"token": "x", **members}, authorization=header, x_correlation_id=CORRELATION_ID
            )
            assert full_response(response) == TWO_METHODS


def test_invalid_client_needs_no_statement(server: Platform, stale_snapshots: None) -> None:
    server.introspect("x")
    with CaptureQueriesContext(connection) as captured:
        for header, members in wrong_credentials(server).values():
            server.post("/oauth/introspect", {"token": "x", **members}, authorization=header)
    assert list(captured) == []


def test_disabled_resource_server_or_tenant_is_rejected(server: Platform, tokens: dict[str, Any]) -> None:
    row = ResourceServer.objects.for_tenant("nagra").get()
    for row_of, other in ((row, row.tenant), (row.tenant, row)):
        assert server.is_active(tokens["access_token"])
        row_of.enabled = False
        row_of.save()
        snapshot.invalidate("nagra")
        for path in PATHS:
            response = server.post(path, {"token": tokens["access_token"]}, x_correlation_id=CORRELATION_ID)
            assert full_response(response) == INVALID_CLIENT
        row_of.enabled = other.enabled = True
        row_of.save()
        snapshot.invalidate("nagra")
    assert server.is_active(tokens["access_token"])


def test_only_a_hash_of_the_secret_is_stored(server: Platform) -> None:
    row = ResourceServer.unscoped.values().get()
    assert bytes(row.pop("secret_hash")) == hashlib.sha256(server.secret.encode()).digest()
    assert server.secret not in repr(row)
    assert len(server.secret) >= 43, "256 bits"


# Invalid forms


FORMS: dict[str, tuple[bytes | str, dict[str, str], dict[str, Any]]] = {
    "nothing": ("", {}, MALFORMED),
    "nothing, of no type": ("", {"content_type": ""}, MALFORMED),
    "nothing, of another type": ("", {"content_type": "application/json"}, MALFORMED),
    "empty": ("&", {}, MALFORMED),
    "no token": ("a=b", {}, MALFORMED),
    "an empty token": ("token=", {}, MALFORMED),
    "a token without a value": ("token", {}, MALFORMED),
    "a token twice": ("token=a&token=b", {}, MALFORMED),
    "the same token twice": ("token=a&token=a", {}, MALFORMED),
    "another member twice": ("token=a&b=c&b=c", {}, MALFORMED),
    "a NUL": ("token=a%00", {}, MALFORMED),
    "a NUL in a name": ("token=a&b%00=c", {}, MALFORMED),
    "a raw NUL": (b"token=a\0", {}, MALFORMED),
    "percent-encoded bytes that are no UTF-8": ("token=%ff", {}, MALFORMED),
    "half a surrogate pair": ("token=%ED%A0%80", {}, MALFORMED),
    "bytes beyond ASCII": ("token=ä".encode(), {}, MALFORMED),
    "JSON": ('{"token": "a"}', {}, MALFORMED),
    "21 members": ("token=a" + "".join(f"&n{number}=" for number in range(20)), {}, MALFORMED),
    "JSON that says so": ('{"token": "a"}', {"content_type": "application/json"}, FORM_EXPECTED),
    "a multipart form": ("token=a", {"content_type": "multipart/form-data; boundary=x"}, FORM_EXPECTED),
    "no type": ("token=a", {"content_type": ""}, FORM_EXPECTED),
    "another charset": (
        "token=a",
        {"content_type": "application/x-www-form-urlencoded; charset=utf-16"},
        FORM_EXPECTED,
    ),
    "compressed": ("token=a", {"content_encoding": "gzip"}, FORM_EXPECTED),
    "too large": ("token=" + "a" * 70_000, {}, BODY_TOO_LARGE),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("form", "headers", "expected"), FORMS.values(), ids=FORMS)
def test_invalid_form(
    server: Platform, path: str, form: bytes | str, headers: dict[str, str], expected: dict[str, Any]
) -> None:
    assert full_response(server.post(path, form, x_correlation_id=CORRELATION_ID, **headers)) == expected


@pytest.mark.parametrize(
    "form", ["token=%zz", "token=%", "token=a&scope=x", "token=a+b", "token_type_hint=&token=%C3%A4"]
)
def test_form_is_decoded_like_a_browser_form(server: Platform, form: str) -> None:
    kind = "application/x-www-form-urlencoded; charset=UTF-8"
    response = server.post("/oauth/introspect", form, content_type=kind)
    assert (response.status_code, response.json()) == (200, {"active": False})


def test_form_with_20_fields_is_read(server: Platform, tokens: dict[str, Any]) -> None:
    form = {f"n{number}": "" for number in range(19)} | {"token": tokens["access_token"]}
    assert server.post("/oauth/introspect", form).json()["active"] is True


@pytest.mark.parametrize("path", PATHS)
def test_token_in_the_url_is_ignored(server: Platform, tokens: dict[str, Any], path: str) -> None:
    response = server.post(f"{path}?token={tokens['access_token']}", "a=b", x_correlation_id=CORRELATION_ID)
    assert full_response(response) == MALFORMED
    assert server.client.get(f"{path}?token=x").status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_unavailable_database_is_503(
    server: Platform, tokens: dict[str, Any], path: str, stale_snapshots: None
) -> None:
    server.introspect("x")
    with database_unavailable():
        response = server.post(path, {"token": tokens["access_token"]}, x_correlation_id=CORRELATION_ID)
        assert full_response(response) == UNAVAILABLE
    assert server.is_active(tokens["access_token"])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("header", ["Basic \u00e9", "Basic ===", "Basic /w==", "Basic", "Bearer x"])
def test_malformed_credentials_are_rejected(server: Platform, path: str, header: str) -> None:
    assert (
        full_response(
            server.post(path, {"token": "x"}, x_correlation_id=CORRELATION_ID, authorization=header)
        )
        == INVALID_CLIENT
    )
