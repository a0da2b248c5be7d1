"""`openapi.json`: generated, committed, valid, served, and the whole API."""

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
from tests.conftest import ClientApp


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path(OPENAPI_FILE).read_text())
    return loaded


def test_the_committed_file_is_what_the_code_generates(document: dict[str, Any]) -> None:
    written = StringIO()
    call_command("spectacular", format="openapi-json", fail_on_warn=True, validate=True, stdout=written)
    assert json.loads(written.getvalue()) == document, "run make openapi"


def test_it_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)


def test_it_is_served_as_it_is_committed(client: Client) -> None:
    answer = client.get("/openapi.json")
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.content == Path(OPENAPI_FILE).read_bytes()


def test_it_describes_every_address_of_the_api(document: dict[str, Any]) -> None:
    pages = {"openapi.json", "docs/", "docs", "admin/", "admin", "metrics"}
    assert set(document["paths"]) == {"/" + str(url.pattern) for url in urlpatterns} - {
        "/" + p for p in pages
    }


def test_each_call_names_its_headers_and_its_refusals(document: dict[str, Any]) -> None:
    call = document["paths"]["/ags/getSessionToken"]["post"]
    assert {(header["name"], header.get("required", False)) for header in call["parameters"]} == {
        ("nv-tenant-id", True),
        ("x-auth-service-id", True),
        ("x-correlation-id", False),
    }
    assert set(call["responses"]) == {"200", "400", "401", "403", "413", "415", "503"}
    assert set(document["paths"]["/ags/servicediscovery"]["get"]["responses"]) == {
        "200",
        "304",
        "400",
        "404",
        "503",
    }
    for path in document["paths"].values():
        for method in path.values():
            for status, response in method["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}


def test_what_a_sign_on_answers_is_what_it_describes(
    document: dict[str, Any], app: ClientApp, trial: Service
) -> None:
    several = app.prove("account-1,account-2")
    answers = {
        "/ags/signOn": [app.prove("account-1"), several],
        "/ags/subsequentSignOn": [app.choose(several.json()["accounts"][0]["userAccountToken"])],
        "/ags/signOnWithSessionToken": [app.sign_on()],
    }
    statuses = []
    for path, given in answers.items():
        for answer in given:
            described = document["paths"][path]["post"]["responses"][str(answer.status_code)]
            schema = described["content"]["application/json"]["schema"] | {
                "components": document["components"]
            }
            OAS30Validator(schema).validate(answer.json())
            with pytest.raises(ValidationError):
                OAS30Validator(schema).validate({})
            statuses.append(answer.status_code)
    assert statuses == [201, 300, 201, 201]


def test_the_header_of_a_choice_is_named_and_its_body_may_be_left_out(document: dict[str, Any]) -> None:
    call = document["paths"]["/ags/subsequentSignOn"]["post"]
    assert {header["name"]: header.get("required", False) for header in call["parameters"]} == {
        "nv-tenant-id": True,
        "x-auth-service-id": True,
        "User-Token": True,
        "x-correlation-id": False,
    }
    assert not call["requestBody"].get("required", False)
    assert document["paths"]["/ags/signOn"]["post"]["requestBody"]["required"]


def test_it_names_no_host_and_no_outside_file(document: dict[str, Any]) -> None:
    assert "servers" not in document
    assert "://" not in json.dumps(document["paths"])
