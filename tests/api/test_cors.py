"""Pages of other sites: they may ask, and read, where the tenant lists their origin, and nowhere else."""

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
from tests.api.test_refusals import ID, UNAVAILABLE, database_away, whole
from tests.conftest import ClientApp, HeadEnd, platform

pytestmark = pytest.mark.once

SITE = "https://tv.nagra.example"
PORT = "http://localhost:8080"
THEIRS = "https://tv.sunrise.example"
STRANGERS = [
    THEIRS.replace("sunrise", "nobody"),
    SITE.replace("https", "http"),
    SITE + ":8443",
    SITE + "/",
    SITE + ".evil.example",
    "https://evil.example/" + SITE,
    "https://nagra.example",
    SITE.upper(),
    f" {SITE}",
    f"{SITE}, {SITE}",
    "null",
    "*",
    "",
]

# The header list of the contract
ASKED = [
    *("content-type", "authorization", "accept-language", "cache-control", "pragma", "expires"),
    *("nagra-device-type", "nagra-target", "nv-tenant-id", "x-auth-service-id", "x-correlation-id"),
    "user-token",
]

METHODS = {
    f"/{url.pattern}": [method.upper() for method in url.callback.view_class.http_method_names]
    for url in urlpatterns
    # There is nothing at /metrics but for those who come in by another port.
    if isinstance(url, URLPattern) and url.name != "docs" and str(url.pattern) != "metrics"
}


@pytest.fixture
def sites(nagra: HeadEnd, sunrise: HeadEnd) -> HeadEnd:
    """Nagra, which lists two origins; sunrise lists another."""
    for tenant_id, origins in ((nagra.tenant_id, [SITE, PORT]), (sunrise.tenant_id, [THEIRS])):
        tenant = Tenant.objects.get(pk=tenant_id)
        tenant.allowed_origins = origins
        tenant.save()
    return nagra


def preflight(path: str, origin: str, method: str = "POST", asked: list[str] = ASKED) -> Any:
    """What a browser sends before the request itself."""
    headers = {
        "origin": origin,
        "access-control-request-method": method,
        "access-control-request-headers": ",".join(sorted(asked)),
        "x-correlation-id": ID,
    }
    return Client(raise_request_exception=False).options(path, headers=headers)


def cors(answer: Any) -> dict[str, str]:
    """What of an answer concerns a browser."""
    return {n: v for n, v in answer.headers.items() if n.lower().startswith("access-control-")}


READABLE = {
    "Access-Control-Allow-Origin": SITE,
    "Access-Control-Expose-Headers": "x-correlation-id, retry-after",
}


# Before the request


@pytest.mark.parametrize("path", METHODS)
@pytest.mark.parametrize("origin", [SITE, PORT, THEIRS])
def test_a_preflight_passes_at_every_address_for_an_origin_that_a_tenant_lists(
    sites: HeadEnd, path: str, origin: str
) -> None:
    answer = preflight(path, origin)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    allowed = answer.headers["Access-Control-Allow-Methods"].split(", ")
    assert allowed == METHODS[path]
    assert set(answer.headers["Access-Control-Allow-Headers"].split(", ")) == set(ASKED)
    assert 0 < int(answer.headers["Access-Control-Max-Age"]) <= 600
    assert answer.headers["Vary"] == "origin"
    assert answer.headers["x-correlation-id"] == ID
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize("path", METHODS)
def test_a_preflight_of_another_origin_is_refused(sites: HeadEnd, path: str) -> None:
    for origin in STRANGERS:
        answer = preflight(path, origin)
        assert (answer.status_code, cors(answer)) == (405, {}), origin


def test_what_is_no_preflight_is_a_method_that_is_not_answered(sites: HeadEnd) -> None:
    answer = Client().options("/ags/signOut", headers={"origin": SITE})
    assert (answer.status_code, cors(answer)) == (405, {})
    answer = preflight("/nothing", SITE)
    assert (answer.status_code, cors(answer)) == (404, {})


def test_the_pages_of_staff_are_for_no_other_site(sites: HeadEnd) -> None:
    for path in ("/admin/", "/admin/login/", "/docs/"):
        assert cors(preflight(path, SITE)) == {}
        assert cors(Client().get(path, headers={"origin": SITE})) == {}


def test_a_warm_preflight_is_no_statement(sites: HeadEnd, stays_stale: None) -> None:
    preflight("/ags/signOut", SITE)
    with CaptureQueriesContext(connection) as captured:
        for origin in (SITE, *STRANGERS):
            preflight("/ags/signOut", origin)
    assert list(captured) == []


def test_a_database_that_is_away_is_a_503(sites: HeadEnd) -> None:
    with database_away():
        assert whole(preflight("/ags/signOut", SITE)) == UNAVAILABLE


def test_an_origin_that_is_taken_away_and_a_tenant_that_is_disabled_are_refused(sites: HeadEnd) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = [PORT]
    tenant.save()
    snapshot.invalidate("nagra")
    assert [preflight("/ags/signOut", origin).status_code for origin in (SITE, PORT)] == [405, 204]
    assert cors(sites.discover(origin=SITE)) == {}
    tenant.enabled = False
    tenant.save()
    snapshot.invalidate("nagra")
    assert preflight("/ags/signOut", PORT).status_code == 405


# The request itself


def answers(app: ClientApp, origin: str) -> dict[str, Any]:
    """An answer of every address that a page may call, and refusals of every kind."""
    nagra = app.head_end
    app.sign_on()
    session_token = app.session_token()
    body = {"parameters": [{"name": "sessionToken", "value": session_token}], "deviceInformation": {}}
    accounts = app.prove("account-1,account-2", origin=origin)
    keys = f"/.well-known/jwks.json?tenant={nagra.tenant_id}"
    return {
        "200 discovery": nagra.discover(origin=origin),
        "200 session token": nagra.present(nagra.token(), origin=origin),
        "201 sign-on": app.call("/ags/signOnWithSessionToken", body, origin=origin),
        "401 spent": app.call("/ags/signOnWithSessionToken", body, origin=origin),
        "201 direct sign-on": app.prove("account-1", origin=origin),
        "300 accounts": accounts,
        "201 choice": app.choose(accounts.json()["accounts"][0]["userAccountToken"], origin=origin),
        "401 second choice": app.choose(accounts.json()["accounts"][1]["userAccountToken"], origin=origin),
        "503 upstream": app.prove("away", origin=origin),
        "200 refresh": app.refresh(origin=origin),
        "200 sign-out": app.sign_out(origin=origin),
        "401 sign-out": app.sign_out(origin=origin),
        "200 key set": nagra.client.get(keys, headers={"origin": origin}),
        "200 introspection": platform(nagra.tenant_id).introspect("x", origin=origin),
        "200 revocation": platform(nagra.tenant_id).revoke("x", origin=origin),
        "401 not proven": nagra.present("x", origin=origin),
        "400 no service": nagra.present("x", x_auth_service_id=None, origin=origin),
        "400 no body": app.call("/ags/signOnWithSessionToken", {}, origin=origin),
        "403 no such service": nagra.present("x", x_auth_service_id="unknown", origin=origin),
        "413 too large": nagra.post(b" " * 70_000, origin=origin),
        "415 another type": nagra.post("x", content_type="text/plain", origin=origin),
    }


def test_a_page_of_the_tenants_own_origin_reads_answers_and_refusals(sites: HeadEnd, trial: Service) -> None:
    for name, answer in answers(ClientApp(sites), SITE).items():
        assert str(answer.status_code) == name[:3], answer.content
        assert cors(answer) == READABLE, name


def test_a_page_of_any_other_origin_reads_nothing_that_of_another_tenant_included(
    sites: HeadEnd, trial: Service
) -> None:
    for origin in (THEIRS, *STRANGERS):
        for name, answer in answers(ClientApp(sites), origin).items():
            assert str(answer.status_code) == name[:3], "nothing is refused for its origin"
            assert cors(answer) == {}, f"{name} by {origin!r}"


def test_a_refusal_of_no_tenant_is_read_by_nobody(sites: HeadEnd) -> None:
    for answer in (
        sites.discover(nv_tenant_id=None, origin=SITE),
        sites.discover(nv_tenant_id="nobody", origin=SITE),
        sites.client.get("/.well-known/jwks.json?tenant=nobody", headers={"origin": SITE}),
        platform("nagra").introspect("x", authorization="Basic x", origin=SITE),
        sites.client.get("/nothing", headers={"origin": SITE}),
    ):
        assert answer.status_code >= 400
        assert cors(answer) == {}


def test_what_a_cache_may_keep_says_that_it_depends_on_the_origin(sites: HeadEnd, trial: Service) -> None:
    for answer in answers(ClientApp(sites), SITE).values():
        kept = answer.headers["Cache-Control"] != "no-store"
        assert ("origin" in answer.headers.get("Vary", "")) == kept
    etag = sites.discover().headers["ETag"]
    unchanged = sites.discover(if_none_match=etag, origin=SITE)
    assert (unchanged.status_code, cors(unchanged)) == (304, READABLE)


# What can be listed


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
def test_what_no_browser_would_send_cannot_be_listed(nagra: HeadEnd, origins: Any) -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = origins
    with pytest.raises(ValidationError):
        tenant.save()
