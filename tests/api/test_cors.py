"""CORS: only pages of an allowed origin may send requests and read responses."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern

from ags.urls import urlpatterns
from tenants.models import Service, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.database import database_unavailable
from tests.support.operators import create_platform
from tests.support.responses import CORRELATION_ID, UNAVAILABLE, full_response

pytestmark = pytest.mark.once

ORIGIN = "https://tv.nagra.example"
ORIGIN_WITH_PORT = "http://localhost:8080"
SUNRISE_ORIGIN = "https://tv.sunrise.example"
OTHER_ORIGINS = [
    SUNRISE_ORIGIN.replace("sunrise", "nobody"),
    ORIGIN.replace("https", "http"),
    ORIGIN + ":8443",
    ORIGIN + "/",
    ORIGIN + ".evil.example",
    "https://evil.example/" + ORIGIN,
    "https://nagra.example",
    ORIGIN.upper(),
    f" {ORIGIN}",
    f"{ORIGIN}, {ORIGIN}",
    "null",
    "*",
    "",
]

# The request headers of client apps
REQUEST_HEADERS = [
    *("content-type", "authorization", "accept-language", "cache-control", "pragma", "expires"),
    *("nagra-device-type", "nagra-target", "nv-tenant-id", "x-auth-service-id", "x-correlation-id"),
    "user-token",
]

METHODS = {
    f"/{url.pattern}": [method.upper() for method in url.callback.view_class.http_method_names]  # type: ignore[attr-defined]
    for url in urlpatterns
    # /metrics exists only on the operations port.
    if isinstance(url, URLPattern)
    and url.name not in {"docs", "explanation"}
    and str(url.pattern) not in {"metrics", "admin/login/"}
}


@pytest.fixture
def sites(nagra: HeadEnd, sunrise: HeadEnd) -> HeadEnd:
    """Nagra allows two origins; sunrise allows another."""
    for tenant_id, origins in (
        (nagra.tenant_id, [ORIGIN, ORIGIN_WITH_PORT]),
        (sunrise.tenant_id, [SUNRISE_ORIGIN]),
    ):
        tenant = Tenant.objects.get(pk=tenant_id)
        tenant.allowed_origins = origins
        tenant.save()
    return nagra


def preflight(
    path: str, origin: str, method: str = "POST", request_headers: list[str] = REQUEST_HEADERS
) -> Any:
    """Send a preflight request."""
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": ",".join(sorted(request_headers)),
        "x-correlation-id": CORRELATION_ID,
    }
    return Client(raise_request_exception=False).options(path, headers=headers)


def cors_headers(response: Any) -> dict[str, str]:
    """Return the CORS headers of a response."""
    return {n: v for n, v in response.headers.items() if n.lower().startswith("access-control-")}


READABLE = {
    "Access-Control-Allow-Origin": ORIGIN,
    "Access-Control-Expose-Headers": "x-ags-config, x-correlation-id, retry-after",
}


# Preflight requests


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("origin", [ORIGIN, ORIGIN_WITH_PORT, SUNRISE_ORIGIN])
def test_preflight_succeeds_for_an_allowed_origin(sites: HeadEnd, path: str, origin: str) -> None:
    response = preflight(path, origin)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Access-Control-Allow-Origin"] == origin
    allowed = response.headers["Access-Control-Allow-Methods"].split(", ")
    assert allowed == METHODS[path]
    assert set(response.headers["Access-Control-Allow-Headers"].split(", ")) == set(REQUEST_HEADERS)
    assert 0 < int(response.headers["Access-Control-Max-Age"]) <= 600
    assert response.headers["Vary"] == "origin"
    assert response.headers["x-correlation-id"] == CORRELATION_ID
    assert response.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("path", METHODS)
def test_preflight_of_another_origin_is_405(sites: HeadEnd, path: str) -> None:
    for origin in OTHER_ORIGINS:
        response = preflight(path, origin)
        assert (response.status_code, cors_headers(response)) == (405, {}), origin


def test_options_that_is_not_a_preflight_is_an_error(sites: HeadEnd) -> None:
    response = Client().options("/ags/signOut", headers={"origin": ORIGIN})
    assert (response.status_code, cors_headers(response)) == (405, {})
    response = preflight("/nothing", ORIGIN)
    assert (response.status_code, cors_headers(response)) == (404, {})


def test_staff_pages_have_no_cors_headers(sites: HeadEnd) -> None:
    for path in ("/admin/", "/admin/login/", "/docs/"):
        assert cors_headers(preflight(path, ORIGIN)) == {}
        assert cors_headers(Client().get(path, headers={"origin": ORIGIN})) == {}


def test_preflight_with_a_fresh_snapshot_needs_no_statement(sites: HeadEnd, stale_snapshots: None) -> None:
    preflight("/ags/signOut", ORIGIN)
    with CaptureQueriesContext(connection) as captured:
        for origin in (ORIGIN, *OTHER_ORIGINS):
            preflight("/ags/signOut", origin)
    assert list(captured) == []


def test_preflight_with_an_unavailable_database_is_503(sites: HeadEnd) -> None:
    with database_unavailable():
        assert full_response(preflight("/ags/signOut", ORIGIN)) == UNAVAILABLE


def test_removed_origin_and_disabled_tenant_are_rejected(sites: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = [ORIGIN_WITH_PORT]
    tenant.save()
    snapshot.invalidate("nagra")
    assert [preflight("/ags/signOut", origin).status_code for origin in (ORIGIN, ORIGIN_WITH_PORT)] == [
        405,
        204,
    ]
    assert cors_headers(sites.discover(origin=ORIGIN)) == {}
    tenant.enabled = False
    tenant.save()
    snapshot.invalidate("nagra")
    assert preflight("/ags/signOut", ORIGIN_WITH_PORT).status_code == 405


# Actual requests


def responses(app: ClientApp, origin: str) -> dict[str, Any]:
    """Responses of every URL that client apps use, and errors of every kind."""
    nagra = app.head_end
    app.sign_on()
    session_token = app.session_token()
    body = {"parameters": [{"name": "sessionToken", "value": session_token}], "deviceInformation": {}}
    accounts = app.sign_on_directly("account-1,account-2", origin=origin)
    keys = f"/.well-known/jwks.json?tenant={nagra.tenant_id}"
    return {
        "200 discovery": nagra.discover(origin=origin),
        "200 session token": nagra.present(nagra.token(), origin=origin),
        "201 sign-on": app.call("/ags/signOnWithSessionToken", body, origin=origin),
        "401 spent": app.call("/ags/signOnWithSessionToken", body, origin=origin),
        "201 direct sign-on": app.sign_on_directly("account-1", origin=origin),
        "300 accounts": accounts,
        "201 choice": app.choose_account(accounts.json()["accounts"][0]["userAccountToken"], origin=origin),
        "401 second choice": app.choose_account(
            accounts.json()["accounts"][1]["userAccountToken"], origin=origin
        ),
        "503 upstream": app.sign_on_directly("away", origin=origin),
        "200 refresh": app.refresh(origin=origin),
        "200 sign-out": app.sign_out(origin=origin),
        "401 sign-out": app.sign_out(origin=origin),
        "200 key set": nagra.client.get(keys, headers={"origin": origin}),
        "200 introspection": create_platform(nagra.tenant_id).introspect("x", origin=origin),
        "200 revocation": create_platform(nagra.tenant_id).revoke("x", origin=origin),
        "401 invalid token": nagra.present("x", origin=origin),
        "400 no service": nagra.present("x", x_auth_service_id=None, origin=origin),
        "400 no body": app.call("/ags/signOnWithSessionToken", {}, origin=origin),
        "403 no such service": nagra.present("x", x_auth_service_id="unknown", origin=origin),
        "413 too large": nagra.post(b" " * 70_000, origin=origin),
        "415 another type": nagra.post("x", content_type="text/plain", origin=origin),
    }


def test_page_of_an_allowed_origin_can_read_responses_and_errors(sites: HeadEnd, trial: Service) -> None:
    for name, response in responses(ClientApp(sites), ORIGIN).items():
        assert str(response.status_code) == name[:3], response.content
        assert cors_headers(response) == READABLE, name


def test_page_of_another_origin_cannot_read_any_response(sites: HeadEnd, trial: Service) -> None:
    for origin in (SUNRISE_ORIGIN, *OTHER_ORIGINS):
        for name, response in responses(ClientApp(sites), origin).items():
            assert str(response.status_code) == name[:3], "the origin does not change the status"
            assert cors_headers(response) == {}, f"{name} by {origin!r}"


def test_error_without_a_tenant_has_no_cors_headers(sites: HeadEnd) -> None:
    for response in (
        sites.discover(nv_tenant_id=None, origin=ORIGIN),
        sites.discover(nv_tenant_id="nobody", origin=ORIGIN),
        sites.client.get("/.well-known/jwks.json?tenant=nobody", headers={"origin": ORIGIN}),
        create_platform("nagra").introspect("x", authorization="Basic x", origin=ORIGIN),
        sites.client.get("/nothing", headers={"origin": ORIGIN}),
    ):
        assert response.status_code >= 400
        assert cors_headers(response) == {}


def test_cacheable_responses_vary_by_origin(sites: HeadEnd, trial: Service) -> None:
    for response in responses(ClientApp(sites), ORIGIN).values():
        is_cacheable = response.headers["Cache-Control"] != "no-store"
        assert ("origin" in response.headers.get("Vary", "")) == is_cacheable
    etag = sites.discover().headers["ETag"]
    unchanged = sites.discover(if_none_match=etag, origin=ORIGIN)
    assert (unchanged.status_code, cors_headers(unchanged)) == (304, READABLE)


# Validation of origins


@pytest.mark.parametrize(
    "origins",
    [
        ["*"],
        ["null"],
        ["https://a.example/"],
        ["https://a.example/path"],
        ["https://*.example"],
        ["https://A.example"],
        ["1app://a.example"],
        ["app:a.example"],
        ["https://a.example:443"],
        ["http://a.example:80"],
        ["app://a.example:65536"],
        ["file://"],
        ["file:///srv/index.html"],
        [f"https://{'a' * 300}.example"],
        ["a.example"],
        ["https://"],
        ["https://a.example:123456"],
        ["https://user@a.example"],
        ["https://a.example\n"],
        [1],
        "https://a.example",
        {"https://a.example": 1},
        [f"https://{number}.example" for number in range(101)],
    ],
)
def test_invalid_origin_is_rejected(nagra: HeadEnd, origins: Any) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = origins
    with pytest.raises(ValidationError):
        tenant.save()
