"""What every installed provider must keep, shipped or foreign, whatever callers and upstreams do."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django import forms
from django.core.exceptions import ValidationError
from openapi_schema_validator import OAS30Validator

from ags.api.views.docs import OPENAPI_FILE
from ags.server.logs import JSONLines
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
from tenants.secrets.settings import secret_destinations, secret_names
from tenants.secrets.settings import select_secrets as secrets_of_service
from tenants.snapshot import snapshot
from tests.conftest import HeadEnd
from tests.providers.offered import asks, body, cleaned, placeholders, proofs, secrets_of, settings_at, tried
from tests.upstream.deadlines import HASTY
from tests.upstream.useless import HTTPS_SERVERS, SERVERS, Server, closed, listening, reached
from tests.waiting import PATIENCE

pytestmark = pytest.mark.once

OPENAPI = json.loads(Path(OPENAPI_FILE).read_text())
ROOT = Path(__file__).resolve().parents[2]

EVERY = pytest.mark.parametrize("strategy", strategies().values(), ids=strategies())
ASKING = {slug: strategy for slug, strategy in strategies().items() if asks(strategy)}

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
    "*)(uid=*",
    "\r\nX-Other: 1",
]
EACH_RUBBISH = pytest.mark.parametrize("rubbish", RUBBISH, ids=range(len(RUBBISH)))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that was logged, at the most talkative level, as it would be written."""
    caplog.set_level(logging.DEBUG)
    return lambda: "\n".join(JSONLines().format(record) for record in caplog.records)


# What it is


@EVERY
def test_it_declares_what_it_is(strategy: Strategy) -> None:
    assert strategy.label
    assert strategy.endpoints
    assert all(isinstance(endpoint, Endpoint) for endpoint in strategy.endpoints)
    assert proofs(strategy), "nobody could ever prove anything by it"
    for name, parameter in strategy.parameter_schema.fields.items():
        assert isinstance(parameter, Parameter)
        assert parameter.help_text, f"{name} has no description"
        assert 1 <= (parameter.max_length or 0) <= 8192


@EVERY
def test_a_shipped_one_has_a_page_and_tests(strategy: Strategy) -> None:
    shipped = [config.name for config in provider_configs() if config.instance is strategy]
    if shipped[0].startswith("providers."):
        assert (ROOT / "docs" / "providers" / f"{strategy.slug}.md").is_file()
        assert (ROOT / "tests" / "providers" / f"test_{strategy.slug}.py").is_file()


@EVERY
def test_its_example_is_complete(strategy: Strategy) -> None:
    declared = strategy.parameter_schema.fields
    assert strategy.example.parameters.keys() <= declared.keys()
    assert {name for name, field in declared.items() if field.required} <= strategy.example.parameters.keys()
    for name, value in strategy.example.parameters.items():
        assert len(value) <= (declared[name].max_length or 0)
    if issubclass(strategy.Settings, UpstreamSettings):
        assert asks(strategy), "who asks an upstream has one in the settings of its example"


@EVERY
def test_each_setting_is_explained_and_has_a_bound(strategy: Strategy) -> None:
    for name, field in strategy.Settings.base_fields.items():
        assert field.help_text, f"{name} has no help_text"
        bounds = ("max_length", "max_value", "choices")
        is_bound = isinstance(field, forms.BooleanField) or any(getattr(field, b, None) for b in bounds)
        assert is_bound, f"{name} may be of any size"


@EVERY
def test_each_secret_names_the_settings_of_its_destination(strategy: Strategy) -> None:
    fields = strategy.Settings.base_fields
    for name, field in fields.items():
        if not isinstance(field, SecretField):
            continue
        if field.destination_settings:
            where = placeholders(strategy) | ({"ca_certificates"} & fields.keys())
            missing = sorted(where - set(field.destination_settings) - {name})
            assert not missing, f"{name} is sent to what {missing} names, and does not declare it"


class WatchedKeys(Mapping[str, Any]):
    """Keys of a tenant that has none, which notice that somebody looks."""

    looked_at = False

    def __getitem__(self, kid: str) -> Any:
        self.looked_at = True
        raise KeyError(kid)

    def __iter__(self) -> Iterator[str]:
        self.looked_at = True
        return iter(())

    def __len__(self) -> int:
        self.looked_at = True
        return 0


@EVERY
def test_it_looks_at_the_keys_of_the_tenant_only_if_it_says_so(strategy: Strategy) -> None:
    keys = WatchedKeys()
    with closed() as port, suppress(VerificationFailed, UpstreamUnavailable):
        strategy.verify(strategy.example.parameters, cleaned(strategy, port), KeyRing("nagra", keys))
    assert strategy.uses_keys or not keys.looked_at


# What staff and callers see of it


@pytest.fixture
def offered(nagra: HeadEnd, strategy: Strategy) -> HeadEnd:
    """An operator with a service of it, whose upstream is away."""
    with closed() as port:
        offer(strategy, port)
    return nagra


def offer(strategy: Strategy, port: int) -> Service:
    service = Service(
        tenant_id="nagra",
        name="Offered",
        strategy=strategy.slug,
        display_name="x",
        enabled=True,
        settings=settings_at(strategy, port),
    )
    service.save()
    return service


def post(head_end: HeadEnd, endpoint: Endpoint, parameters: Mapping[str, str]) -> Any:
    return head_end.client.generic(
        "POST",
        f"/ags{endpoint.value}",
        json.dumps(body(endpoint, parameters.items())),
        "application/json",
        headers=head_end.headers(x_auth_service_id="Offered"),
    )


@EVERY
def test_its_settings_reach_it_as_they_were_entered_however_often_they_are_stored(
    strategy: Strategy, nagra: HeadEnd
) -> None:
    with closed() as port:
        entered = cleaned(strategy, port)
        service = offer(strategy, port)
        for _ in range(2):
            snapshot.invalidate("nagra")
            view = snapshot.get_tenant("nagra")
            assert view is not None
            assert dict(view.services["Offered"].settings) == dict(entered)
            service = Service.objects.for_tenant("nagra").get(pk=service.pk)
            json.dumps(service.settings)
            service.save()


@EVERY
def test_a_secret_is_not_kept_where_it_would_be_sent_elsewhere(strategy: Strategy, nagra: HeadEnd) -> None:
    service = offer(strategy, 1)
    for secret in secrets_of_service(strategy, service.settings):
        for name in secret_destinations(strategy, secret).keys() - set(secret_names(strategy)):
            # What is stored is another, so that what is saved is right by its form.
            Service.unscoped.filter(pk=service.pk).update(settings=service.settings | {name: "elsewhere"})
            moved = Service.objects.for_tenant("nagra").get(pk=service.pk)
            moved.settings = service.settings
            with pytest.raises(ValidationError, match=f"{secret}: .* changed. Enter the secret again"):
                moved.save()


@EVERY
def test_a_setting_that_it_does_not_have_is_refused(strategy: Strategy, nagra: HeadEnd) -> None:
    given = {**settings_at(strategy, 1), "no_such_setting": 1}
    with pytest.raises(ValidationError, match="no_such_setting"):
        Service(
            tenant_id="nagra", name="Offered", strategy=strategy.slug, display_name="x", settings=given
        ).save()


@EVERY
def test_discovery_lists_it_as_it_declares_itself(strategy: Strategy, offered: HeadEnd) -> None:
    answer = offered.discover()
    assert not [secret for secret in secrets_of(strategy) if secret in answer.content.decode()]
    (service,) = [s for s in answer.json()["availableServices"] if s["authServiceName"] == "Offered"]
    assert [endpoint["name"] for endpoint in service["endpoints"]] == [e.name for e in strategy.endpoints]
    told = {endpoint["name"]: endpoint["parameterProperties"] for endpoint in service["endpoints"]}
    for endpoint in proofs(strategy):
        assert told[endpoint.name] == [
            {
                "name": name,
                "mandatory": field.required,
                "isPassword": field.is_password,
                "description": field.help_text,
                "maxLength": field.max_length,
            }
            for name, field in strategy.parameter_schema.fields.items()
        ]


@EVERY
def test_openapi_describes_the_body_that_its_example_makes(strategy: Strategy) -> None:
    for endpoint in proofs(strategy):
        call = OPENAPI["paths"][f"/ags{endpoint.value}"]["post"]
        schema = call["requestBody"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": OPENAPI["components"]}
        OAS30Validator(whole).validate(body(endpoint, strategy.example.parameters.items()))


@EVERY
def test_each_mandatory_parameter_is_demanded_by_name(strategy: Strategy, offered: HeadEnd) -> None:
    for name, field in strategy.parameter_schema.fields.items():
        others = {other: "x" for other in strategy.parameter_schema.fields if other != name}
        for endpoint in proofs(strategy) if field.required else ():
            answer = post(offered, endpoint, others)
            assert (answer.status_code, answer.json()["parameter"]) == (400, name)


# What callers do


@EVERY
def test_its_example_is_accepted_or_refused_without_a_crash(strategy: Strategy, said: Any) -> None:
    with closed() as port:
        verdict = tried(strategy, cleaned(strategy, port))
    assert isinstance(verdict, Identity | Choice | VerificationFailed | UpstreamUnavailable)
    told = f"{verdict!r} {verdict} {said()}"
    assert not [secret for secret in secrets_of(strategy) if secret in told]


@EVERY
@EACH_RUBBISH
def test_it_meets_rubbish_without_a_crash_and_without_the_database(strategy: Strategy, rubbish: str) -> None:
    # No fixture opens the database: a query would fail the test.
    limits = {name: field.max_length or 0 for name, field in strategy.parameter_schema.fields.items()}
    with closed() as port:
        settings = cleaned(strategy, port)
        everywhere = {name: rubbish[:limit] for name, limit in limits.items()}
        alone = [{**strategy.example.parameters, name: text} for name, text in everywhere.items()]
        for parameters in (everywhere, *alone):
            verdict = tried(strategy, settings, parameters)
            assert isinstance(verdict, Identity | Choice | VerificationFailed | UpstreamUnavailable)
            assert len(rubbish) < 3 or rubbish not in f"{verdict!r} {verdict}"


@EVERY
@EACH_RUBBISH
def test_what_it_is_given_is_neither_logged_nor_answered(
    strategy: Strategy, offered: HeadEnd, rubbish: str, said: Any
) -> None:
    marker = f"marker4711{rubbish}"
    limits = {name: field.max_length or 0 for name, field in strategy.parameter_schema.fields.items()}
    for endpoint in proofs(strategy):
        answer = post(offered, endpoint, {name: marker[:limit] for name, limit in limits.items()})
        assert answer.status_code in {200, 201, 300, 401, 403, 503}
        bundle = answer.json() if answer.status_code == 201 else {}
        assert "accountId" in bundle or "marker4711" not in answer.content.decode()
    assert said()
    assert not [secret for secret in ("marker4711", *secrets_of(strategy)) if secret in said()]


# What upstreams do


def before_the_upstream_ends(call: Callable[[], Any]) -> Any:
    """Return what `call` returns, while an upstream does what it does. Fails if that takes PATIENCE."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread of the test
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(PATIENCE)


def servers_for(strategy: Strategy) -> dict[str, Server]:
    """What it might find in place of its upstream."""
    trusts = "ca_certificates" in strategy.Settings.base_fields
    return {**SERVERS, **(HTTPS_SERVERS if trusts else {})}


EACH = pytest.mark.parametrize("strategy", ASKING.values(), ids=ASKING)
OF_NO_USE = pytest.mark.parametrize(
    ("strategy", "server"),
    [
        pytest.param(strategy, server, id=f"{slug}: {what}")
        for slug, strategy in ASKING.items()
        for what, server in servers_for(strategy).items()
    ],
)


@EACH
def test_its_example_leads_to_the_upstream_and_no_longer_than_the_deadline(strategy: Strategy) -> None:
    # A slow machine may need more than the first deadline to get there.
    for deadline in (HASTY, 10 * HASTY, 100 * HASTY):
        with listening() as sockets:
            settings = {**cleaned(strategy, sockets[0].getsockname()[1])}
            if "deadline" in settings:
                settings["deadline"] = deadline
            verdict = before_the_upstream_ends(lambda settings=settings: tried(strategy, settings))
            assert isinstance(verdict, VerificationFailed | UpstreamUnavailable)
            if reached(sockets):
                return
    pytest.fail("it does not reach the upstream, so what follows here proves nothing")


@OF_NO_USE
def test_from_an_upstream_of_no_use_nobody_gets_an_identity(
    strategy: Strategy, server: Server, said: Any
) -> None:
    with server() as port:
        verdict = before_the_upstream_ends(lambda: tried(strategy, cleaned(strategy, port)))
    assert isinstance(verdict, VerificationFailed | UpstreamUnavailable)
    told = f"{verdict!r} {verdict} {said()}"
    assert not [secret for secret in secrets_of(strategy) if secret in told]


@OF_NO_USE
def test_trying_the_settings_at_an_upstream_of_no_use_says_so(
    strategy: Strategy, server: Server, said: Any
) -> None:
    found: list[CheckResult] = []
    with server() as port:
        try:
            found.extend(strategy.check(cleaned(strategy, port), KeyRing("nagra", {})))
        except UpstreamUnavailable as outage:
            found.append(CheckResult(passed=False, message=str(outage)))
    assert all(isinstance(finding, CheckResult) and finding.message for finding in found)
    told = f"{found} {said()}"
    assert not [secret for secret in secrets_of(strategy) if secret in told]


@EACH
def test_its_check_finds_an_upstream_that_is_away(strategy: Strategy) -> None:
    with closed() as port:
        try:
            found = list(strategy.check(cleaned(strategy, port), KeyRing("nagra", {})))
        except UpstreamUnavailable:
            return
    assert any(finding.passed is False for finding in found), "or staff would believe that all is well"


@EVERY
def test_preparing_it_waits_for_nothing(strategy: Strategy) -> None:
    with listening() as (stream, _):
        settings = {**cleaned(strategy, stream.getsockname()[1])}
        if "deadline" in settings:
            settings["deadline"] = 10 * PATIENCE
        before_the_upstream_ends(lambda: strategy.prepare(settings, KeyRing("nagra", {})))
        told = strategy.document_urls(settings, KeyRing("nagra", {}))
        assert all(isinstance(text, str) and text for pair in told.items() for text in pair)
    # The stream is closed, so what waits for it ends.


@EACH
def test_while_its_upstream_is_away_the_caller_is_told_to_try_again(
    strategy: Strategy, nagra: HeadEnd, said: Any
) -> None:
    with closed() as port:
        offer(strategy, port)
        for endpoint in proofs(strategy):
            answer = post(nagra, endpoint, strategy.example.parameters)
            assert (answer.status_code, answer.json()["reason"]) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            told = f"{answer.content.decode()} {said()}"
            assert not [secret for secret in secrets_of(strategy) if secret in told]
