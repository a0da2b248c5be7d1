"""The limit on refused requests by client address, without Redis."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from ags.api import failure_limit
from ags.limits import ADDRESS_FAILURES, blocks, memory
from tenants.models import Tenant
from tenants.snapshot import snapshot
from tenants.tenant_snapshot import Limits
from tests.support.clients import ClientApp, HeadEnd, Platform
from tests.support.clock import StoppedClock

MAXIMUM = 3
ADDRESS, OTHER_ADDRESS = "192.0.2.1", "192.0.2.2"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    for module in (blocks, memory):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture(autouse=True)
def _behind_a_proxy(settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES = 1


def limit(tenant_id: str, **fields: Any) -> None:
    tenant = Tenant.objects.get(pk=tenant_id)
    for name, value in {"max_failures_per_address": MAXIMUM, **fields}.items():
        setattr(tenant, name, value)
    tenant.save()
    snapshot.invalidate(tenant_id)


def fail(head_end: HeadEnd, address: str = ADDRESS, **headers: str | None) -> int:
    """Present an invalid token; return the status."""
    status: int = head_end.present("x.y.z", x_forwarded_for=address, **headers).status_code
    return status


def succeed(head_end: HeadEnd, address: str = ADDRESS, **headers: str | None) -> int:
    status: int = head_end.present(head_end.token(), x_forwarded_for=address, **headers).status_code
    return status


def block(head_end: HeadEnd, address: str = ADDRESS, **headers: str | None) -> None:
    statuses = [fail(head_end, address, **headers) for _ in range(MAXIMUM + 2)]
    assert statuses == [401] * (MAXIMUM + 1) + [429]


def test_a_client_with_too_many_failures_is_refused_until_the_window_ends(
    nagra: HeadEnd, clock: StoppedClock
) -> None:
    limit("nagra")
    assert fail(nagra) == 401
    clock.ahead = 4.5
    assert [fail(nagra) for _ in range(MAXIMUM)] == [401] * MAXIMUM
    refused = nagra.present(nagra.token(), x_forwarded_for=ADDRESS, x_correlation_id="flow-1")
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "6", "the window began with the first failure"
    assert refused.json() == {
        "code": 42902,
        "reason": "too_many_failures",
        "message": "Too many refused requests from this address. Retry-After contains the seconds to wait.",
        "correlationId": "flow-1",
    }
    clock.ahead = 9.9
    assert (succeed(nagra), fail(nagra)) == (429, 429)
    clock.ahead = 10.0
    assert (succeed(nagra), fail(nagra)) == (200, 401)


def test_refused_requests_do_not_prolong_a_block(nagra: HeadEnd, clock: StoppedClock) -> None:
    limit("nagra")
    block(nagra)
    clock.ahead = 9.0
    assert {fail(nagra) for _ in range(10)} == {429}
    clock.ahead = 10.0
    block(nagra)


def test_only_the_client_and_the_tenant_of_the_failures_are_blocked(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    limit("nagra")
    limit("sunrise")
    block(nagra)
    assert succeed(nagra) == 429
    assert succeed(nagra, OTHER_ADDRESS) == 200
    assert succeed(sunrise) == 200
    block(sunrise)
    block(sunrise, OTHER_ADDRESS)
    assert succeed(nagra, OTHER_ADDRESS) == 200


def test_every_url_but_the_probes_is_refused(nagra: HeadEnd) -> None:
    limit("nagra")
    block(nagra)
    headers = nagra.headers(x_forwarded_for=ADDRESS)
    statuses = {
        path: nagra.client.get(path, headers=headers).status_code
        for path in ("/ags/servicediscovery", "/ags/signOut", "/healthz", "/readyz", "/nothing")
    }
    assert statuses == {
        "/ags/servicediscovery": 429,
        "/ags/signOut": 429,
        "/healthz": 200,
        "/readyz": 200,
        "/nothing": 404,
    }


def test_refused_refreshes_count_with_either_name_of_the_header(nagra: HeadEnd, app: ClientApp) -> None:
    limit("nagra")
    assert app.sign_on().status_code == 201
    statuses = [
        app.refresh("no token", x_forwarded_for=ADDRESS, **header).status_code
        for header in [{"nv_tenant_id": None, "tenantId": "nagra"}] * (MAXIMUM + 1)
    ]
    assert statuses == [401] * (MAXIMUM + 1)
    assert succeed(nagra) == 429


def test_a_header_that_does_not_name_the_tenant_evades_nothing(
    nagra: HeadEnd, sunrise: HeadEnd, settings: Any
) -> None:
    settings.AGS_DEFAULT_TENANT = "nagra"
    limit("nagra")
    limit("sunrise", max_failures_per_address=0)
    others: dict[str, Any] = {"nv_tenant_id": None, "tenantId": "sunrise"}
    statuses = [fail(nagra, **others) for _ in range(MAXIMUM + 2)]
    assert statuses == [401] * (MAXIMUM + 1) + [429]
    assert succeed(sunrise) == 200


def test_a_resource_server_names_no_tenant(
    server: Platform, nagra: HeadEnd, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failure_limit, "UNKNOWN_TENANT_LIMITS", Limits(MAXIMUM, 0, ()))
    settings.AGS_DEFAULT_TENANT = "nagra"
    limit("nagra")
    server.secret = "wrong"
    statuses = [
        server.introspect("token", x_forwarded_for=ADDRESS, nv_tenant_id="nagra").status_code
        for _ in range(MAXIMUM + 2)
    ]
    assert statuses == [401] * (MAXIMUM + 1) + [429]
    assert succeed(nagra) == 200


def test_a_preflight_request_is_not_blocked(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names no tenant: a block of unknown tenants would refuse the browsers of all tenants."""
    monkeypatch.setattr(failure_limit, "UNKNOWN_TENANT_LIMITS", Limits(MAXIMUM, 0, ()))
    limit("nagra", allowed_origins=["https://tv.example"])
    block_unknown = [fail(nagra, nv_tenant_id="nobody") for _ in range(MAXIMUM + 2)]
    assert block_unknown == [403] * (MAXIMUM + 1) + [429]
    preflight = nagra.client.options(
        "/ags/signOn",
        headers={
            "x-forwarded-for": ADDRESS,
            "origin": "https://tv.example",
            "access-control-request-method": "POST",
        },
    )
    assert preflight.status_code == 204


def test_invalid_requests_and_successes_do_not_count(nagra: HeadEnd) -> None:
    limit("nagra", max_failures_per_address=1)
    for _ in range(3):
        assert nagra.post("{", x_forwarded_for=ADDRESS).status_code == 400
        assert succeed(nagra) == 200
    assert [fail(nagra) for _ in range(3)] == [401, 401, 429]


def test_what_another_limit_refuses_does_not_count(nagra: HeadEnd) -> None:
    limit("nagra", max_sign_ons_per_account=1)
    assert [succeed(nagra) for _ in range(MAXIMUM + 3)] == [200] + [429] * (MAXIMUM + 2)
    assert fail(nagra) == 401
    assert nagra.present(nagra.token(OpfAccountId="account-2"), x_forwarded_for=ADDRESS).status_code == 200


def test_a_tenant_without_a_limit(nagra: HeadEnd) -> None:
    limit("nagra", max_failures_per_address=0)
    assert {fail(nagra) for _ in range(20)} == {401}


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("192.0.2.0/24", ADDRESS),
        ("192.0.2.1", ADDRESS),
        ("192.0.2.0/24", f"::ffff:{ADDRESS}"),
        ("2001:db8::/32", "2001:db8::1"),
    ],
)
def test_addresses_of_exempt_networks_are_never_limited(
    nagra: HeadEnd, sunrise: HeadEnd, network: str, address: str
) -> None:
    limit("nagra", exempt_networks=["198.51.100.0/24", network])
    limit("sunrise")
    assert {fail(nagra, address) for _ in range(10)} == {401}
    block(sunrise, address)


def test_an_exempt_address_is_served_although_its_neighbour_is_blocked(nagra: HeadEnd) -> None:
    limit("nagra", exempt_networks=["2001:db8::1"])
    assert {fail(nagra, "2001:db8::1") for _ in range(MAXIMUM + 2)} == {401}
    block(nagra, "2001:db8::2")
    assert succeed(nagra, "2001:db8::1") == 200
    assert succeed(nagra, "2001:db8::3") == 429


def test_addresses_of_one_ipv6_network_are_one_client(nagra: HeadEnd) -> None:
    limit("nagra")
    statuses = [fail(nagra, f"2001:db8:0:1::{number}") for number in range(1, MAXIMUM + 3)]
    assert statuses == [401] * (MAXIMUM + 1) + [429]
    assert succeed(nagra, "2001:db8:0:2::1") == 200


def test_unknown_tenants_share_a_limit(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_limit, "UNKNOWN_TENANT_LIMITS", Limits(MAXIMUM, 0, ()))
    statuses = [fail(nagra, nv_tenant_id=f"nobody-{number}") for number in range(MAXIMUM + 2)]
    assert statuses == [403] * (MAXIMUM + 1) + [429]
    assert succeed(nagra) == 200


def test_refused_resource_servers_count(server: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_limit, "UNKNOWN_TENANT_LIMITS", Limits(MAXIMUM, 0, ()))
    server.secret = "wrong"
    statuses = [server.introspect("token", x_forwarded_for=ADDRESS).status_code for _ in range(MAXIMUM + 2)]
    assert statuses == [401] * (MAXIMUM + 1) + [429]


@pytest.mark.parametrize("address", ["", "127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1", "fd00::1"])
def test_a_peer_that_may_be_a_proxy_is_not_limited(nagra: HeadEnd, settings: Any, address: str) -> None:
    settings.AGS_TRUSTED_PROXIES = 0
    limit("nagra")
    nagra.client = Client(REMOTE_ADDR=address)
    assert {fail(nagra) for _ in range(10)} == {401}


def test_a_public_peer_is_limited_without_proxies(nagra: HeadEnd, settings: Any) -> None:
    settings.AGS_TRUSTED_PROXIES = 0
    limit("nagra")
    nagra.client = Client(REMOTE_ADDR="9.9.9.9")
    assert [fail(nagra) for _ in range(MAXIMUM + 2)] == [401] * (MAXIMUM + 1) + [429]


def test_a_browser_can_read_the_response(nagra: HeadEnd) -> None:
    limit("nagra", allowed_origins=["https://tv.example"])
    block(nagra)
    refused = nagra.present(nagra.token(), x_forwarded_for=ADDRESS, origin="https://tv.example")
    assert refused.status_code == 429
    assert refused.headers["Access-Control-Allow-Origin"] == "https://tv.example"


def test_a_refused_request_uses_no_database(nagra: HeadEnd, django_assert_num_queries: Any) -> None:
    limit("nagra")
    block(nagra)
    with django_assert_num_queries(0):
        assert succeed(nagra) == 429


def test_the_log_and_the_metrics_count_refused_requests(
    nagra: HeadEnd, caplog: pytest.LogCaptureFixture
) -> None:
    limit("nagra")
    block(nagra)
    caplog.set_level("INFO")
    succeed(nagra)
    logged = vars(caplog.records[-1])
    assert (logged["reason"], logged["status"], logged["tenant"], logged["route"]) == (
        "too_many_failures",
        429,
        "nagra",
        "/ags/getSessionToken",
    )
    metrics = nagra.client.get("/metrics", **{"ags.operations": True}).content.decode()
    assert 'ags_limited_requests_total{limit="address"} 2.0' in metrics


def test_the_tables_in_memory_are_bounded(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "MAX_COUNTERS", 3)
    monkeypatch.setattr(blocks, "MAX_BLOCKS", 2)
    limit("nagra", max_failures_per_address=1)
    for number in range(1, 6):
        address = f"198.51.100.{number}"
        assert [fail(nagra, address) for _ in range(3)] == [401, 401, 429]
    assert [succeed(nagra, f"198.51.100.{number}") for number in range(1, 6)] == [200] * 3 + [429] * 2
    assert len(ADDRESS_FAILURES.local) == 3
