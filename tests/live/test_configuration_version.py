"""The version of the configuration in every response, and the processes that report it."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db.models import F

from ags.operations.processes import LIFETIME, read_propagation
from ags.sessions.models import Process
from tenants.models import Tenant, read_configuration_version
from tests.support.clients import HeadEnd
from tests.support.configuration_version import rename, stopped
from tests.support.live import use_server, wait_until_served
from tests.support.operators import create_operator
from tests.support.server import ServerProcess, exchange_bytes
from tests.support.staff import person
from tests.support.waiting import wait_until

pytestmark = pytest.mark.postgresql

PAGE = "/admin/ags_sessions/process/"
ORIGIN = "https://tv.nagra.example"

REQUESTS = {
    "token": b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
    "discovery": b"GET /ags/servicediscovery HTTP/1.1\r\nHost: localhost\r\nnv-tenant-id: %(tenant)b\r\n",
    "key set": b"GET /.well-known/jwks.json?tenant=%(tenant)b HTTP/1.1\r\nHost: localhost\r\n",
    "introspection": b"POST /oauth/introspect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
    "preflight": b"OPTIONS /ags/signOn HTTP/1.1\r\nHost: localhost\r\nOrigin: https://tv.nagra.example\r\n"
    b"Access-Control-Request-Method: POST\r\n",
    "unknown URL": b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n",
    "wrong method": b"DELETE /ags/signOn HTTP/1.1\r\nHost: localhost\r\n",
    "HEAD": b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "HTTP/1.0": b"GET /healthz HTTP/1.0\r\n",
    "wrong host": b"GET /ags/servicediscovery HTTP/1.1\r\nHost: nowhere\r\n",
    "not HTTP": b"\x00\x01\x02\r\n",
    "no host": b"GET / HTTP/1.1\r\n",
    "large header": b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"x" * 9000 + b"\r\n",
    "large body": b"POST /ags/signOn HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n",
    "transfer coding": b"POST /ags/signOn HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n",
    "readiness": b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n",
    "metrics": b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n",
    "reference": b"GET /docs/ HTTP/1.1\r\nHost: localhost\r\n",
    "admin": b"GET /admin/ HTTP/1.1\r\nHost: localhost\r\n",
    "login": b"GET /admin/login/ HTTP/1.1\r\nHost: localhost\r\n",
    "static file": b"GET /static/tenants/copy.js HTTP/1.1\r\nHost: localhost\r\n",
    "admin error": b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n",
    "explanation": b"GET /explanations/nothing HTTP/1.1\r\nHost: localhost\r\n",
}


def is_complete(processes: int) -> bool:
    propagation = read_propagation()
    return len(propagation.processes) == processes and not propagation.behind


def headers_of(port: int, requests: int = 20) -> set[str]:
    """Return the versions in the responses to requests over new connections, which all workers accept."""
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return {exchange_bytes(port, request)[0].headers["x-ags-config"] for _ in range(requests)}


def serves(server: ServerProcess, versions: set[str]) -> bool:
    return headers_of(server.port, 1) == versions


def summary(browser: Any) -> str:
    text = browser.get(PAGE).content.decode()
    return " ".join(re.sub("<[^>]*>", " ", text).split())


@pytest.fixture
def server(transactional_db: None, port: int) -> Iterator[ServerProcess]:
    """A server of the test alone: the tests count processes."""
    with ServerProcess(AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        yield server


def test_every_response_has_the_version_of_the_process(
    server: ServerProcess, port: int, nagra: HeadEnd
) -> None:
    tenant = Tenant.objects.get(pk=nagra.tenant_id)
    tenant.allowed_origins = [ORIGIN]
    tenant.save()
    sunrise = create_operator("sunrise", bytes(range(2, 34)))
    wait_until_served(server, nagra)
    wait_until_served(server, sunrise)
    version = str(read_configuration_version())
    wait_until(lambda: headers_of(server.port, 1) == {version}, "the process does not follow the change")
    statuses = set()
    for name, head in REQUESTS.items():
        for head_end in (nagra, sunrise):
            request = head.replace(b"%(tenant)b", head_end.tenant_id.encode()) + b"Connection: close\r\n\r\n"
            responses = exchange_bytes(server.port, request, half_close=True, heads=int(name == "HEAD"))
            assert responses, name
            for response in responses:
                if response.status_code == 100:  # not a final response
                    continue
                assert response.headers.get_all("x-ags-config") == [version], name
                statuses.add(response.status_code)
    metrics = exchange_bytes(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert [(each.status_code, each.headers["x-ags-config"]) for each in metrics] == [(200, version)]
    etag = server.get("/ags/servicediscovery", headers={"nv-tenant-id": nagra.tenant_id}).headers["ETag"]
    unchanged = server.get(
        "/ags/servicediscovery", headers={"nv-tenant-id": nagra.tenant_id, "if-none-match": etag}
    )
    assert (unchanged.status_code, unchanged.headers["x-ags-config"]) == (304, version)
    refused = use_server(server, nagra).present("x.y.z")
    assert (refused.status_code, refused.headers["x-ags-config"]) == (401, version)
    assert {200, 204, 301, 400, 404, 405, 413, 431, 501} <= statuses, statuses


def test_an_idle_process_follows_changes_of_any_tenant(server: ServerProcess, nagra: HeadEnd) -> None:
    for _ in range(2):
        versions = {str(rename(nagra.tenant_id))}
        wait_until(partial(serves, server, versions), "the process does not follow the change")


def test_the_page_shows_when_all_processes_serve_a_change(transactional_db: None, nagra: HeadEnd) -> None:
    staff = person("auditor")  # who is assigned to no tenant
    with ServerProcess(AGS_WORKERS="2") as one, ServerProcess(AGS_WORKERS="2") as other:
        wait_until(lambda: is_complete(4), "not all processes report")
        for _ in range(3):
            version = rename(nagra.tenant_id)
            wait_until(lambda: is_complete(4), "not all processes serve the change")
            assert headers_of(one.port) | headers_of(other.port) == {str(version)}
            assert f"All 4 processes serve the latest configuration, version {version}." in summary(staff)
        assert "Refresh" not in staff.get(PAGE).headers
        assert nagra.tenant_id not in summary(staff)

        suspended = one.workers()[0]
        with stopped(suspended):
            version = rename(nagra.tenant_id)
            wait_until(lambda: len(read_propagation().behind) == 1, "the others do not serve the change")
            page = summary(staff)
            assert (
                f"1 of 4 processes does not serve the latest configuration, version {version}, yet:" in page
            )
            assert f"process {suspended} on" in page
            assert staff.get(PAGE).headers["Refresh"] == "2"
            Process.objects.filter(process_id=suspended).update(reported_at=F("reported_at") - LIFETIME)
            assert is_complete(3)
            rename(nagra.tenant_id)
            wait_until(
                lambda: not Process.objects.filter(process_id=suspended).exists(),
                "no process deletes the row of one that does not report",
            )
        wait_until(lambda: is_complete(4), "the process does not report again")

        killed = other.workers()[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: is_complete(5), "the process that replaces a killed one does not report")
        Process.objects.filter(process_id=killed).update(reported_at=F("reported_at") - LIFETIME)
        rename(nagra.tenant_id)
        wait_until(
            lambda: not Process.objects.filter(process_id=killed).exists(),
            "the row of a killed process remains",
        )
    assert not Process.objects.exists()
