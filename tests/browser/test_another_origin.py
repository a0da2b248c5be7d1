"""A page of another site, in a real browser: it signs on where the tenant lists it, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from playwright.sync_api import Page

from tenants.models import Tenant
from tests.support.browser import visit
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.waiting import PATIENCE

pytestmark = [pytest.mark.once, pytest.mark.django_db(transaction=True)]

# With every header that the contract lets a page send.
JOURNEY = """async ({gate, tenant, service, sessionToken}) => {
  const common = {
    "nv-tenant-id": tenant, "x-correlation-id": "page-1", "user-token": "x",
    "nagra-device-type": "web", "nagra-target": "any",
    "accept-language": "de", "cache-control": "no-cache", "pragma": "no-cache", "expires": "0",
  };
  const call = async (path, headers, body) => {
    const signal = AbortSignal.timeout(60000);
    const answer = await fetch(gate + path, {method: "POST", headers: {...common, ...headers}, body, signal});
    return [answer.status, answer.headers.get("x-correlation-id"), await answer.json()];
  };
  const json = {"content-type": "application/json", "x-auth-service-id": service};
  const body = JSON.stringify(
    {parameters: [{name: "sessionToken", value: sessionToken}], deviceInformation: {deviceType: "web"}});
  try {
    const signOn = await call("/ags/signOnWithSessionToken", json, body);
    const refresh = await call("/ias/v3/token/actions/refresh",
      {authorization: "Bearer " + signOn[2].refresh_token});
    const signOut = await call("/ags/signOut",
      {authorization: refresh[2].access_token, "x-auth-service-id": service});
    const again = await call("/ias/v3/token/actions/refresh",
      {authorization: "Bearer " + refresh[2].refresh_token});
    return [signOn, refresh, signOut, again];
  } catch (error) {
    return String(error);
  }
}"""


class _EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>TV</title><link rel=icon href=data:,>")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    """The origin of a web site that is not the gate's."""
    with HTTPServer(("127.0.0.1", 0), _EmptyPage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(PATIENCE)


def journey(gate: str, site: str, nagra: HeadEnd) -> Any:
    """Go the whole way from a page of that site."""
    arguments = {
        "gate": gate,
        "tenant": nagra.tenant_id,
        "service": SERVICE,
        "sessionToken": ClientApp(nagra).session_token(),
    }
    told: list[Any] = []

    def script(page: Page) -> None:
        page.goto(site)
        told.append(page.evaluate(JOURNEY, arguments))

    visit(site, script)
    return told[0]


def test_a_page_signs_on_where_the_tenant_lists_its_origin(
    live_server: Any, nagra: HeadEnd, site: str
) -> None:
    assert journey(live_server.url, site, nagra) == "TypeError: Failed to fetch", "it is not listed yet"
    tenant = Tenant.objects.get(pk="nagra")
    tenant.allowed_origins = [site]
    tenant.save()
    told = journey(live_server.url, site, nagra)
    assert [status for status, _, _ in told] == [201, 200, 200, 401]
    assert {correlation_id for _, correlation_id, _ in told} == {"page-1"}
    assert told[0][2]["expires_in"] == 3600
    assert told[3][2]["reason"] == "not_authenticated"
