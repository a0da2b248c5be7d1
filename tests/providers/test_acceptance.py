"""The acceptance suite: tests of the contract for all installed providers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator

from ags.api.views.docs import OPENAPI_FILE
from ags.server.logs import JSONFormatter
from providers.contract import (
    CheckResult,
    Choice,
    Endpoint,
    Identity,
    KeyRing,
    Parameter,
    SecretField,
    Strategy,
    UpstreamSettings,
    UpstreamUnavailable,
    VerificationFailed,
)
from providers.registry import provider_configs, strategies
from tenants.models import Service
from tenants.secrets.service_secrets import secret_destinations, secret_names
from tenants.secrets.service_secrets import select_secrets as secrets_of_service
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.paths import ROOT
from tests.support.provider_examples import (
    GARBAGE,
    WatchedKeys,
    authenticating_endpoints,
    call_with_patience,
    cleaned,
    create_service,
    has_upstream,
    placeholders,
    post_parameters,
    request_body,
    secrets_of,
    settings_at,
    try_verify,
)
from tests.support.upstream.deadlines import SHORT
from tests.support.upstream.unusable import (
    HTTPS_SERVERS,
    SERVERS,
    Server,
    closed_port,
    has_connection,
    unread_port,
)
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.once

OPENAPI = json.loads(Path(OPENAPI_FILE).read_text())

EACH_STRATEGY = pytest.mark.parametrize("strategy", strategies().values(), ids=strategies())
WITH_UPSTREAM = {slug: strategy for slug, strategy in strategies().items() if has_upstream(strategy)}
EACH_GARBAGE = pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """Return the log at the level DEBUG, as JSON lines."""
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(JSONFormatter().format(record) for record in caplog.records)


# Declarations


@EACH_STRATEGY
def test_declarations_are_complete(strategy: Strategy) -> None:
    assert strategy.label
    assert strategy.endpoints
    assert all(isinstance(endpoint, Endpoint) for endpoint in strategy.endpoints)
    assert authenticating_endpoints(strategy), "no endpoint receives the parameters"
    for name, parameter in strategy.parameter_schema.fields.items():
        assert isinstance(parameter, Parameter)
        assert parameter.help_text, f"{name} has no description"
        assert 1 <= (parameter.max_length or 0) <= 8192


@EACH_STRATEGY
def test_a_shipped_provider_has_a_page_and_tests(strategy: Strategy) -> None:
    shipped = [config.name for config in provider_configs() if config.instance is strategy]
    if shipped[0].startswith("providers."):
        assert (ROOT / "docs" / "providers" / f"{strategy.slug}.md").is_file()
        assert (ROOT / "tests" / "providers" / f"test_{strategy.slug}.py").is_file()


@EACH_STRATEGY
def test_the_example_is_complete(strategy: Strategy) -> None:
    declared = strategy.parameter_schema.fields
    assert strategy.example.parameters.keys() <= declared.keys()
    assert {name for name, field in declared.items() if field.required} <= strategy.example.parameters.keys()
    for name, value in strategy.example.parameters.items():
        assert len(value) <= (declared[name].max_length or 0)
    if issubclass(strategy.Settings, UpstreamSettings):
        assert has_upstream(strategy), "the settings of the example need the address of the upstream"


@EACH_STRATEGY
def test_each_setting_has_a_help_text_and_a_limit(strategy: Strategy) -> None:
    for name, field in strategy.Settings.base_fields.items():
        assert field.help_text, f"{name} has no help_text"
        bounds = ("max_length", "max_value", "choices")
        is_bound = isinstance(field, forms.BooleanField) or any(getattr(field, b, None) for b in bounds)
        assert is_bound, f"{name} has no limit"


@EACH_STRATEGY
def test_each_secret_names_the_settings_of_its_destination(strategy: Strategy) -> None:
    fields = strategy.Settings.base_fields
    for name, field in fields.items():
        if not isinstance(field, SecretField):
            continue
        if field.destination_settings:
            destinations = placeholders(strategy) | ({"ca_certificates"} & fields.keys())
            missing = sorted(destinations - set(field.destination_settings) - {name})
            assert not missing, f"{name} does not declare the destination settings {missing}"


@EACH_STRATEGY
def test_keys_of_the_tenant_are_read_only_if_uses_keys_is_set(strategy: Strategy) -> None:
    keys = WatchedKeys()
    with closed_port() as port, suppress(VerificationFailed, UpstreamUnavailable):
        strategy.verify(strategy.example.parameters, cleaned(strategy, port), KeyRing("nagra", keys))
    assert strategy.uses_keys or not keys.was_read


# Settings, discovery and OpenAPI


@pytest.fixture
def offered(nagra: HeadEnd, strategy: Strategy) -> HeadEnd:
    """A tenant with a service of the strategy, whose upstream is unreachable."""
    with closed_port() as port:
        create_service(strategy, port)
    return nagra


@EACH_STRATEGY
def test_settings_are_unchanged_after_saving_repeatedly(strategy: Strategy, nagra: HeadEnd) -> None:
    with closed_port() as port:
        cleaned_settings = cleaned(strategy, port)
        service = create_service(strategy, port)
        for _ in range(2):
            snapshot.invalidate("nagra")
            view = snapshot.get_tenant("nagra")
            assert view is not None
            assert dict(view.services["Offered"].settings) == dict(cleaned_settings)
            service = Service.objects.for_tenant("nagra").get(pk=service.pk)
            json.dumps(service.settings)
            service.save()


@EACH_STRATEGY
def test_a_secret_must_be_entered_again_if_its_destination_changes(
    strategy: Strategy, nagra: HeadEnd
) -> None:
    service = create_service(strategy, 1)
    for secret in secrets_of_service(strategy, service.settings):
        for name in secret_destinations(strategy, secret).keys() - set(secret_names(strategy)):
            # The stored destination differs, so that the saved settings are valid.
            Service.unscoped.filter(pk=service.pk).update(settings=service.settings | {name: "elsewhere"})
            moved = Service.objects.for_tenant("nagra").get(pk=service.pk)
            moved.settings = service.settings
            with pytest.raises(ValidationError, match=f"{secret}: .* changed. Enter the secret again"):
                moved.save()


@EACH_STRATEGY
def test_an_unknown_setting_is_rejected(strategy: Strategy, nagra: HeadEnd) -> None:
    given = {**settings_at(strategy, 1), "no_such_setting": 1}
    with pytest.raises(ValidationError, match="no_such_setting"):
        Service(
            tenant_id="nagra", name="Offered", strategy=strategy.slug, display_name="x", settings=given
        ).save()


@EACH_STRATEGY
def test_discovery_lists_the_declared_endpoints_and_parameters(strategy: Strategy, offered: HeadEnd) -> None:
    answer = offered.discover()
    assert not [secret for secret in secrets_of(strategy) if secret in answer.content.decode()]
    (service,) = [s for s in answer.json()["availableServices"] if s["authServiceName"] == "Offered"]
    assert [endpoint["name"] for endpoint in service["endpoints"]] == [e.name for e in strategy.endpoints]
    output = {endpoint["name"]: endpoint["parameterProperties"] for endpoint in service["endpoints"]}
    for endpoint in authenticating_endpoints(strategy):
        assert output[endpoint.name] == [
            {
                "name": name,
                "mandatory": field.required,
                "isPassword": field.is_password,
                "description": field.help_text,
                "maxLength": field.max_length,
            }
            for name, field in strategy.parameter_schema.fields.items()
        ]


@EACH_STRATEGY
def test_openapi_describes_the_body_of_the_example(strategy: Strategy) -> None:
    for endpoint in authenticating_endpoints(strategy):
        call = OPENAPI["paths"][f"/ags{endpoint.value}"]["post"]
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": OPENAPI["components"]}
        OAS30Validator(whole).validate(request_body(endpoint, strategy.example.parameters.items()))


@EACH_STRATEGY
def test_a_missing_mandatory_parameter_is_named_in_the_error(strategy: Strategy, offered: HeadEnd) -> None:
    for name, field in strategy.parameter_schema.fields.items():
        others = {other: "x" for other in strategy.parameter_schema.fields if other != name}
        for endpoint in authenticating_endpoints(strategy) if field.required else ():
            answer = post_parameters(offered, endpoint, others)
            assert (answer.status_code, answer.json()["parameter"]) == (400, name)


# Parameters


@EACH_STRATEGY
def test_the_example_causes_no_unexpected_exception(strategy: Strategy, logged: Any) -> None:
    with closed_port() as port:
        outcome = try_verify(strategy, cleaned(strategy, port))
    assert isinstance(outcome, Identity | Choice | VerificationFailed | UpstreamUnavailable)
    output = f"{outcome!r} {outcome} {logged()}"
    assert not [secret for secret in secrets_of(strategy) if secret in output]


@EACH_STRATEGY
@EACH_GARBAGE
def test_garbage_causes_no_unexpected_exception_and_no_query(strategy: Strategy, garbage: str) -> None:
    # No fixture opens the database: a query would fail the test.
    limits = {name: field.max_length or 0 for name, field in strategy.parameter_schema.fields.items()}
    with closed_port() as port:
        settings = cleaned(strategy, port)
        everywhere = {name: garbage[:limit] for name, limit in limits.items()}
        alone = [{**strategy.example.parameters, name: text} for name, text in everywhere.items()]
        for parameters in (everywhere, *alone):
            outcome = try_verify(strategy, settings, parameters)
            assert isinstance(outcome, Identity | Choice | VerificationFailed | UpstreamUnavailable)
            assert len(garbage) < 3 or garbage not in f"{outcome!r} {outcome}"


@EACH_STRATEGY
@EACH_GARBAGE
def test_parameters_are_neither_logged_nor_returned(
    strategy: Strategy, offered: HeadEnd, garbage: str, logged: Any
) -> None:
    marker = f"marker4711{garbage}"
    limits = {name: field.max_length or 0 for name, field in strategy.parameter_schema.fields.items()}
    for endpoint in authenticating_endpoints(strategy):
        answer = post_parameters(offered, endpoint, {name: marker[:limit] for name, limit in limits.items()})
        assert answer.status_code in {200, 201, 300, 401, 403, 503}
        bundle = answer.json() if answer.status_code == 201 else {}
        assert "accountId" in bundle or "marker4711" not in answer.content.decode()
    assert logged()
    assert not [secret for secret in ("marker4711", *secrets_of(strategy)) if secret in logged()]


def servers_for(strategy: Strategy) -> dict[str, Server]:
    """Return the unusable servers to test with."""
    trusts = "ca_certificates" in strategy.Settings.base_fields
    return {**SERVERS, **(HTTPS_SERVERS if trusts else {})}


EACH_WITH_UPSTREAM = pytest.mark.parametrize("strategy", WITH_UPSTREAM.values(), ids=WITH_UPSTREAM)
EACH_UNUSABLE_UPSTREAM = pytest.mark.parametrize(
    ("strategy", "server"),
    [
        pytest.param(strategy, server, id=f"{slug}: {what}")
        for slug, strategy in WITH_UPSTREAM.items()
        for what, server in servers_for(strategy).items()
    ],
)


@EACH_WITH_UPSTREAM
def test_the_example_reaches_the_upstream_within_the_deadline(strategy: Strategy) -> None:
    # A slow machine may need more than the first deadline to get there.
    for deadline in (SHORT, 10 * SHORT, 100 * SHORT):
        with unread_port() as sockets:
            settings = {**cleaned(strategy, sockets[0].getsockname()[1])}
            if "deadline" in settings:
                settings["deadline"] = deadline
            outcome = call_with_patience(partial(try_verify, strategy, settings))
            assert isinstance(outcome, VerificationFailed | UpstreamUnavailable)
            if has_connection(sockets):
                return
    pytest.fail("the example does not reach the upstream, so the tests below are void")


@EACH_UNUSABLE_UPSTREAM
def test_an_unusable_upstream_yields_no_identity(strategy: Strategy, server: Server, logged: Any) -> None:
    with server() as port:
        outcome = call_with_patience(lambda: try_verify(strategy, cleaned(strategy, port)))
    assert isinstance(outcome, VerificationFailed | UpstreamUnavailable)
    output = f"{outcome!r} {outcome} {logged()}"
    assert not [secret for secret in secrets_of(strategy) if secret in output]


@EACH_UNUSABLE_UPSTREAM
def test_check_reports_an_unusable_upstream_without_secrets(
    strategy: Strategy, server: Server, logged: Any
) -> None:
    results: list[CheckResult] = []
    with server() as port:
        try:
            results.extend(strategy.check(cleaned(strategy, port), KeyRing("nagra", {})))
        except UpstreamUnavailable as outage:
            results.append(CheckResult(passed=False, message=str(outage)))
    assert all(isinstance(result, CheckResult) and result.message for result in results)
    output = f"{results} {logged()}"
    assert not [secret for secret in secrets_of(strategy) if secret in output]


@EACH_WITH_UPSTREAM
def test_check_fails_if_the_upstream_is_unreachable(strategy: Strategy) -> None:
    with closed_port() as port:
        try:
            results = list(strategy.check(cleaned(strategy, port), KeyRing("nagra", {})))
        except UpstreamUnavailable:
            return
    assert any(result.passed is False for result in results), (
        "the check reports success for an unreachable upstream"
    )


@EACH_STRATEGY
def test_prepare_does_not_block(strategy: Strategy) -> None:
    with unread_port() as (stream, _):
        settings = {**cleaned(strategy, stream.getsockname()[1])}
        if "deadline" in settings:
            settings["deadline"] = 10 * PATIENCE
        call_with_patience(lambda: strategy.prepare(settings, KeyRing("nagra", {})))
        output = strategy.document_urls(settings, KeyRing("nagra", {}))
        assert all(isinstance(text, str) and text for pair in output.items() for text in pair)

    # The socket is closed now, so background calls end.


@EACH_WITH_UPSTREAM
def test_an_unreachable_upstream_causes_a_503_with_retry_after(
    strategy: Strategy, nagra: HeadEnd, logged: Any
) -> None:
    with closed_port() as port:
        create_service(strategy, port)
        for endpoint in authenticating_endpoints(strategy):
            answer = post_parameters(nagra, endpoint, strategy.example.parameters)
            assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            output = f"{answer.content.decode()} {logged()}"
            assert not [secret for secret in secrets_of(strategy) if secret in output]
