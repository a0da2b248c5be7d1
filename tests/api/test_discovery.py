"""`GET /ags/servicediscovery`."""

from __future__ import annotations

from typing import Any

import pytest

from tenants.models import Service, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import SERVICE, HeadEnd


def add_service(name: str, **fields: Any) -> Service:
    service = Service(
        tenant_id="nagra",
        name=name,
        **{"strategy": "operator_token", "display_name": "x", "enabled": True, **fields},
    )
    service.save()
    snapshot.invalidate("nagra")
    return service


def service_names(head_end: HeadEnd) -> list[str]:
    return [service["authServiceName"] for service in head_end.discover().json()["availableServices"]]


def test_response_has_the_documented_format(nagra: HeadEnd) -> None:
    response = nagra.discover()
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert response.json() == {
        "availableServices": [
            {
                "authServiceName": SERVICE,
                "displayAttributes": {
                    "name": "Customer Authentication",
                    "logo": "https://customer.example/auth.png",
                },
                "endpoints": [
                    {
                        "name": "GET_SESSION_TOKEN",
                        "path": "/getSessionToken",
                        "parameterProperties": [
                            {
                                "name": "OperatorAuthToken",
                                "mandatory": True,
                                "isPassword": False,
                                "description": "A JWT with account and tenant, signed with a secret that the "
                                "operator shares with AGS.",
                                "maxLength": 8192,
                            }
                        ],
                    },
                    {
                        "name": "SIGNON_WITH_SESSION_TOKEN",
                        "path": "/signOnWithSessionToken",
                        "parameterProperties": [
                            {
                                "name": "sessionToken",
                                "mandatory": True,
                                "isPassword": False,
                                "description": "The session token that the operator has shown, as a QR code "
                                "for example.",
                                "maxLength": 128,
                            }
                        ],
                    },
                    {"name": "SIGNOUT", "path": "/signOut", "parameterProperties": []},
                ],
            }
        ]
    }


def test_listed_endpoint_can_be_called(nagra: HeadEnd) -> None:
    (service,) = nagra.discover().json()["availableServices"]
    endpoint = service["endpoints"][0]
    (parameter,) = endpoint["parameterProperties"]
    response = nagra.client.post(
        "/ags" + endpoint["path"],
        {"parameters": [{"name": parameter["name"], "value": nagra.token()}]},
        "application/json",
        headers={"nv-tenant-id": "nagra", "x-auth-service-id": service["authServiceName"]},
    )
    assert response.status_code == 200


def test_enabled_services_are_sorted_by_name(nagra: HeadEnd) -> None:
    add_service("Zulu")
    add_service("Alpha")
    add_service("Off", enabled=False)
    assert service_names(nagra) == ["Alpha", SERVICE, "Zulu"]


def test_services_of_another_tenant_are_not_listed(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    add_service("Only Nagra's")
    assert service_names(sunrise) == [SERVICE]
    assert sunrise.present(sunrise.token(), x_auth_service_id="Only Nagra's").status_code == 403


def test_service_of_a_missing_provider_is_not_listed(nagra: HeadEnd) -> None:
    add_service("Gone")
    Service.unscoped.filter(name="Gone").update(strategy="no_longer_installed")
    snapshot.invalidate("nagra")
    assert service_names(nagra) == [SERVICE]
    assert nagra.present(nagra.token(), x_auth_service_id="Gone").status_code == 403


@pytest.mark.parametrize("tenant_id", ["nobody", "disabled", "empty"])
def test_tenant_without_services_looks_like_an_unknown_tenant(nagra: HeadEnd, tenant_id: str) -> None:
    Tenant(id="disabled", name="x", enabled=False).save()
    Tenant(id="empty", name="x").save()
    response = nagra.discover(nv_tenant_id=tenant_id, x_correlation_id="c")
    assert (response.status_code, response.json()) == (
        404,
        {
            "code": 40401,
            "reason": "no_services",
            "message": "The tenant offers no services.",
            "correlationId": "c",
        },
    )


def test_unchanged_response_is_304(nagra: HeadEnd) -> None:
    etag = nagra.discover().headers["ETag"]
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        response = nagra.discover(if_none_match=condition)
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["ETag"] == etag
        assert "x-correlation-id" in response.headers
    assert nagra.discover(if_none_match='"other"').status_code == 200
    assert nagra.discover(if_match='"other"').status_code == 200, "If-Match is ignored"
    add_service("Another")
    changed = nagra.discover(if_none_match=etag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_caching_headers(nagra: HeadEnd) -> None:
    response = nagra.discover()
    assert response.headers["Vary"] == "nv-tenant-id, origin"
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("condition", [None, "*"])
def test_head_is_get_without_a_body(nagra: HeadEnd, condition: str | None) -> None:
    headers = nagra.headers(x_auth_service_id=None, if_none_match=condition)
    response = nagra.client.head("/ags/servicediscovery", headers=headers)
    assert response.content == b""
    assert response.headers["ETag"] == nagra.discover().headers["ETag"]
    if condition is None:
        assert response.headers["Content-Length"] == nagra.discover().headers["Content-Length"] != "0"
