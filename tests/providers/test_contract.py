"""What every installed provider must keep, shipped or foreign."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from ags.operations.logs import JSONLines
from providers.contract import Endpoint, Identity, KeyRing, Parameter, Refused, Strategy
from providers.registry import strategies
from tenants.models import Service
from tenants.settings_form import validated
from tests.conftest import HeadEnd

EVERY = pytest.mark.parametrize("strategy", strategies().values(), ids=strategies())

RUBBISH = [
    "",
    " ",
    "x" * 8192,
    "..",
    "a.b.c",
    "eyJhbGciOiJub25lIn0.e30.",
    "\u202e\U0001f600",
    "' OR 1=1 --",
    "{}",
    "[" * 4000,
    "%s%n{0}",
]


@EVERY
def test_it_declares_what_it_is(strategy: Strategy) -> None:
    assert strategy.label
    assert strategy.endpoints
    assert all(isinstance(endpoint, Endpoint) for endpoint in strategy.endpoints)
    for name, parameter in strategy.declaration.declared.items():
        assert isinstance(parameter, Parameter)
        assert parameter.help_text, f"{name} has no description"
        assert 1 <= (parameter.max_length or 0) <= 8192


@EVERY
def test_its_settings_are_complete_without_a_choice_by_staff(strategy: Strategy) -> None:
    stored, cleaned = validated(strategy, {})
    assert json.loads(json.dumps(stored)) == stored, "settings are stored as JSON"
    assert 1 <= cleaned["session_token_ttl"] <= 3600
    assert validated(strategy, stored)[0] == stored, "what is stored is accepted again"


@EVERY
@pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))
def test_it_meets_rubbish_without_a_crash_and_without_the_database(strategy: Strategy, rubbish: str) -> None:
    # No fixture opens the database: a query would fail the test.
    _, settings = validated(strategy, {})
    parameters = dict.fromkeys(strategy.declaration.declared, rubbish)
    try:
        identity = strategy.verify(parameters, settings, KeyRing("nagra", {}))
    except Refused as refused:
        told = str(refused)
    else:
        assert isinstance(identity, Identity)
        told = repr(identity)
    assert len(rubbish) < 3 or rubbish not in told


@pytest.fixture
def offered(nagra: HeadEnd, strategy: Strategy) -> HeadEnd:
    Service(
        tenant_id=nagra.tenant_id, name="Offered", strategy=strategy.slug, display_name="x", enabled=True
    ).save()
    return nagra


@EVERY
def test_discovery_lists_it_as_it_declares_itself(strategy: Strategy, offered: HeadEnd) -> None:
    services = offered.discover().json()["availableServices"]
    (service,) = [service for service in services if service["authServiceName"] == "Offered"]
    assert [endpoint["name"] for endpoint in service["endpoints"]] == [e.name for e in strategy.endpoints]
    for endpoint in service["endpoints"]:
        if endpoint["name"] != Endpoint.GET_SESSION_TOKEN.name:
            continue  # the gate's own, the same for every provider
        told = {listed["name"]: listed["mandatory"] for listed in endpoint["parameterProperties"]}
        assert told == {name: field.required for name, field in strategy.declaration.declared.items()}


@EVERY
def test_each_mandatory_parameter_is_demanded_by_name(strategy: Strategy, offered: HeadEnd) -> None:
    for name, field in strategy.declaration.declared.items():
        if field.required:
            others = [
                {"name": other, "value": "x"} for other in strategy.declaration.declared if other != name
            ]
            answer = offered.post({"parameters": others}, x_auth_service_id="Offered")
            assert (answer.status_code, answer.json()["parameter"]) == (400, name)


@EVERY
@pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))
def test_what_it_is_given_is_neither_logged_nor_answered(
    strategy: Strategy, offered: HeadEnd, rubbish: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    marker = f"marker4711{rubbish}"
    limits = {name: field.max_length or 0 for name, field in strategy.declaration.declared.items()}
    parameters = [{"name": name, "value": marker[:limit]} for name, limit in limits.items()]
    answer: Any = offered.post({"parameters": parameters}, x_auth_service_id="Offered")
    assert answer.status_code in {200, 401, 403}
    assert "marker4711" not in answer.content.decode()
    lines = [JSONLines().format(record) for record in caplog.records]
    assert lines
    assert not [line for line in lines if "marker4711" in line]
