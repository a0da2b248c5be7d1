"""`GET /ags/servicediscovery`: what a tenant offers, and to whom it is told."""

from __future__ import annotations

from typing import Any

import pytest

from tenants.models import Service, Tenant
from tenants.snapshot import snapshot
from tests.conftest import SERVICE, HeadEnd


def add(name: str, **fields: Any) -> Service:
    service = Service(
        tenant_id="nagra",
        name=name,
        **{"strategy": "operator_token", "display_name": "x", "enabled": True, **fields},
    )
    service.save()
    snapshot.invalidate("nagra")
    return service


def names(head_end: HeadEnd) -> list[str]:
    return [service["authServiceName"] for service in head_end.discover().json()["availableServices"]]


def test_the_document_is_as_the_contract_shows_it(nagra: HeadEnd) -> None:
    answer = nagra.discover()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {
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
                                "description": "A JWT over account and tenant, signed with a secret that the "
                                "operator and AGS share.",
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


def test_what_is_listed_can_be_used_as_it_is_listed(nagra: HeadEnd) -> None:
    (service,) = nagra.discover().json()["availableServices"]
    endpoint = service["endpoints"][0]
    (parameter,) = endpoint["parameterProperties"]
    answer = nagra.client.post(
        "/ags" + endpoint["path"],
        {"parameters": [{"name": parameter["name"], "value": nagra.token()}]},
        "application/json",
        headers={"nv-tenant-id": "nagra", "x-auth-service-id": service["authServiceName"]},
    )
    assert answer.status_code == 200


def test_enabled_services_are_listed_by_name_and_disabled_ones_are_not(nagra: HeadEnd) -> None:
    add("Zulu")
    add("Alpha")
    add("Off", enabled=False)
    assert names(nagra) == ["Alpha", SERVICE, "Zulu"]


def test_one_operator_never_sees_the_services_of_the_other(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    add("Only Nagra's")
    assert names(sunrise) == [SERVICE]
    assert sunrise.present(sunrise.token(), x_auth_service_id="Only Nagra's").status_code == 403


def test_a_service_whose_provider_is_gone_disappears_and_the_rest_stays(nagra: HeadEnd) -> None:
    add("Gone")
    Service.unscoped.filter(name="Gone").update(strategy="no_longer_installed")
    snapshot.invalidate("nagra")
    assert names(nagra) == [SERVICE]
    assert nagra.present(nagra.token(), x_auth_service_id="Gone").status_code == 403


@pytest.mark.parametrize("who", ["nobody", "disabled", "empty"])
def test_a_tenant_that_offers_nothing_is_not_told_from_one_that_is_not_there(
    nagra: HeadEnd, who: str
) -> None:
    Tenant(id="disabled", name="x", enabled=False).save()
    Tenant(id="empty", name="x").save()
    answer = nagra.discover(nv_tenant_id=who, x_correlation_id="c")
    assert (answer.status_code, answer.json()) == (
        404,
        {
            "code": 40401,
            "reason": "no_services",
            "message": "The tenant offers no service.",
            "correlationId": "c",
        },
    )


def test_a_document_that_has_not_changed_is_not_sent_again(nagra: HeadEnd) -> None:
    etag = nagra.discover().headers["ETag"]
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        answer = nagra.discover(if_none_match=condition)
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["ETag"] == etag
        assert "x-correlation-id" in answer.headers
    assert nagra.discover(if_none_match='"other"').status_code == 200
    assert nagra.discover(if_match='"other"').status_code == 200, "nothing here is changed on a condition"
    add("Another")
    changed = nagra.discover(if_none_match=etag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_caches_keep_it_apart_by_tenant_and_ask_each_time(nagra: HeadEnd) -> None:
    answer = nagra.discover()
    assert answer.headers["Vary"] == "nv-tenant-id, origin"
    assert answer.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize("condition", [None, "*"])
def test_head_is_get_without_a_body(nagra: HeadEnd, condition: str | None) -> None:
    headers = nagra.headers(x_auth_service_id=None, if_none_match=condition)
    answer = nagra.client.head("/ags/servicediscovery", headers=headers)
    assert answer.content == b""
    assert answer.headers["ETag"] == nagra.discover().headers["ETag"]
    if condition is None:
        assert answer.headers["Content-Length"] == nagra.discover().headers["Content-Length"] != "0"
