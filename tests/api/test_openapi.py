"""`openapi.json` is generated, committed, valid, served and complete."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from jsonschema.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator
from openapi_spec_validator import validate

from ags.api.views.docs import OPENAPI_FILE
from ags.urls import urlpatterns
from tenants.models import Service
from tests.support.clients import ClientApp


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(OPENAPI_FILE).read_text())
    return loaded


def test_committed_file_is_current(document: dict[str, Any]) -> None:
    output = StringIO()
    call_command("spectacular", format="openapi-json", fail_on_warn=True, validate=True, stdout=output)
    assert json.loads(output.getvalue()) == document, "run make openapi"


def test_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


def test_committed_file_is_served(client: Client) -> None:
    response = client.get("/openapi.json")
    assert response.headers["Content-Type"] == "application/json"
    assert response.content == Path(OPENAPI_FILE).read_bytes()


def test_every_url_is_described(document: dict[str, Any]) -> None:
    pages = {
        "openapi.json",
        "docs/",
        "docs",
        "admin/login/",
        "admin/",
        "admin",
        "metrics",
        "explanations/<token>",
    }
    assert set(document["paths"]) == {"/" + str(url.pattern) for url in urlpatterns} - {
        "/" + p for p in pages
    }


def test_operations_describe_headers_and_errors(document: dict[str, Any]) -> None:
    operation = document["paths"]["/ags/getSessionToken"]["post"]
    assert {(header["name"], header.get("required", False)) for header in operation["parameters"]} == {
        ("nv-tenant-id", True),
        ("x-auth-service-id", True),
        ("x-correlation-id", False),
    }
    assert set(operation["responses"]) == {"200", "400", "401", "403", "413", "415", "429", "503"}
    assert set(document["paths"]["/ags/servicediscovery"]["get"]["responses"]) == {
        "200",
        "304",
        "400",
        "404",
        "429",
        "503",
    }
    for path in document["paths"].values():
        for method in path.values():
            for status, response in method["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}


def test_sign_on_responses_match_their_schemas(
    document: dict[str, Any], app: ClientApp, trial: Service
) -> None:
    several = app.sign_on_directly("account-1,account-2")
    responses = {
        "/ags/signOn": [app.sign_on_directly("account-1"), several],
        "/ags/subsequentSignOn": [app.choose_account(several.json()["accounts"][0]["userAccountToken"])],
        "/ags/signOnWithSessionToken": [app.sign_on()],
    }
    statuses = []
    for path, expected in responses.items():
        for response in expected:
            described = document["paths"][path]["post"]["responses"][str(response.status_code)]
            schema = described["content"]["application/json"]["schema"] | {
                "components": document["components"]
            }
            OAS30Validator(schema).validate(response.json())
            with pytest.raises(ValidationError):
                OAS30Validator(schema).validate({})
            statuses.append(response.status_code)
    assert statuses == [201, 300, 201, 201]


def test_subsequent_sign_on_requires_user_token_and_no_body(document: dict[str, Any]) -> None:
    operation = document["paths"]["/ags/subsequentSignOn"]["post"]
    assert {header["name"]: header.get("required", False) for header in operation["parameters"]} == {
        "nv-tenant-id": True,
        "x-auth-service-id": True,
        "User-Token": True,
        "x-correlation-id": False,
    }
    assert not operation["requestBody"].get("required", False)
    assert document["paths"]["/ags/signOn"]["post"]["requestBody"]["required"]


def test_document_has_no_absolute_urls(document: dict[str, Any]) -> None:
    assert "servers" not in document
    assert "://" not in json.dumps(document["paths"])
