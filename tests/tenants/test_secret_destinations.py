"""A stored secret stays with its destination: a change of where it is sent demands it again."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.test import Client

from providers.contract import HostField, HTTPSField, Strategy
from providers.registry import provider_configs, strategies
from tenants.models import Service
from tenants.secrets.settings import is_placeholder, secret_destinations, secret_names
from tenants.services.check import check_service
from tests.conftest import HeadEnd, person
from tests.providers.offered import settings_at
from tests.tenants.test_encryption import NEW, OLD
from tests.upstream.https import HTTPSServer

NAME = "Offered"
AGAIN = "Enter the secret again."
SHIPPED = {
    config.instance.slug: config.instance
    for config in provider_configs()
    if config.instance is not None and config.name.startswith("providers.") and secret_names(config.instance)
}
EVERY = pytest.mark.parametrize("strategy", SHIPPED.values(), ids=SHIPPED)


SENT_TO = {
    ("dummy", "passphrase"): set(),
    ("ldap", "bind_password"): {"host", "port", "transport", "ca_certificates", "bind_dn"},
    ("operator_login", "private_key"): {"address", "ca_certificates"},
    ("operator_login", "secret"): {"address", "ca_certificates", "user"},
    ("radius", "line_password"): {"host", "port", "shared_secret"},
    ("radius", "line_secret"): set(),
    ("radius", "shared_secret"): {"host", "port"},
    ("token_introspection", "client_secret"): {"address", "ca_certificates", "client_id"},
}


@EVERY
def test_where_the_secrets_of_what_is_shipped_are_sent(strategy: Strategy) -> None:
    for secret in secret_names(strategy):
        assert secret_destinations(strategy, secret).keys() == SENT_TO[strategy.slug, secret]


@cache
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()


def complete(strategy: Strategy) -> dict[str, Any]:
    """Its example, and whatever else lets each setting be changed alone."""
    more: dict[str, dict[str, Any]] = {
        "dummy": {"passphrase": "a passphrase"},
        "ldap": {"status_attribute": "status", "suspended_value": "suspended"},
        "operator_login": {"secret": "a-secret", "private_key": private_key()},
        "radius": {"line_secret": "l" * 16, "line_password": "line"},
    }
    settings = settings_at(strategy, 4711) | more.get(strategy.slug, {})
    assert {name for name in secret_names(strategy) if settings.get(name)} == set(secret_names(strategy))
    return settings


OF_THEIR_OWN_FORM = {
    "bind_dn": "cn=other,dc=operator,dc=example",
    "search_base": "dc=other,dc=example",
    "user_filter": "(cn={username})",
    "ca_certificates": "",
}


def another(name: str, field: forms.Field, value: Any) -> Any:
    """Another value that the field accepts."""
    match field:
        case _ if name in OF_THEIR_OWN_FORM:
            return OF_THEIR_OWN_FORM[name]
        case forms.ChoiceField():
            return next(choice for choice, _ in field.choices if choice != value)  # type: ignore[misc]
        case forms.IntegerField():
            return field.max_value if field.max_value != value else field.min_value
        case HTTPSField():
            return "https://other.example/"
        case HostField():
            return "other.example"
    return "other"


def offer(strategy: Strategy, **changes: Any) -> Service:
    service = Service(
        tenant_id="nagra", name=NAME, strategy=strategy.slug, display_name="x", enabled=True, settings=changes
    )
    service.save()
    return stored()


def stored() -> Service:
    return Service.objects.for_tenant("nagra").get(name=NAME)


# The ways in: each changes settings, keeps every secret that is not among them, and returns what is refused


def by_code(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    service = stored()
    service.settings |= changes
    try:
        service.save()
    except ValidationError as refused:
        return dict(message.split(": ", 1) for message in refused.message_dict["settings"])
    return {}


def by_admin(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    answer = post(staff(), changes)
    if answer.status_code == 302:
        return {}
    errors = answer.context["adminform"].form.errors
    return {name.removeprefix("settings-"): " ".join(why) for name, why in errors.items()}


def staff() -> Client:
    """The browser of somebody who may edit the services of this operator."""
    user = User.objects.filter(username="operator staff of nagra").first()
    if user is None:
        return person("operator staff", "nagra")
    browser = Client()
    browser.force_login(user)
    return browser


def post(browser: Client, changes: Mapping[str, Any]) -> Any:
    service = stored()
    shown = {name: "" if is_placeholder(value) else value for name, value in service.settings.items()}
    sent = {f"settings-{name}": value for name, value in (shown | dict(changes)).items()}
    own = {"name": service.name, "display_name": "x", "logo": "", "enabled": "on"}
    return browser.post(f"/admin/tenants/service/{service.pk}/change/", own | sent)


def by_file(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    service = stored()
    settings = {n: {"env": "NOT_SET_HERE"} if is_placeholder(v) else v for n, v in service.settings.items()}
    told = apply(service.strategy, settings | dict(changes), tmp_path)
    place, _, why = told.partition(": ")
    return {place.removeprefix("tenants[0].services[0].settings."): why} if why and "[0]" in place else {}


def apply(strategy: str, settings: Mapping[str, Any], tmp_path: Path) -> str:
    """Return what the command says of the first change, or of the first mistake."""
    service = {"name": NAME, "strategy": strategy, "settings": dict(settings)}
    path = tmp_path / "tenants.yaml"
    path.write_text(yaml.safe_dump({"tenants": [{"id": "nagra", "services": [service]}]}))
    out = io.StringIO()
    try:
        call_command("apply", str(path), stdout=out)
    except CommandError as mistake:
        return str(mistake)
    return out.getvalue().splitlines()[0]


Way = Callable[[Mapping[str, Any], Path], dict[str, str]]
WAYS: dict[str, Way] = {"code": by_code, "admin": by_admin, "apply": by_file}
EACH_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@EVERY
@EACH_WAY
def test_a_change_of_where_a_secret_is_sent_and_no_other_demands_it_again(
    strategy: Strategy, way: Way, nagra: HeadEnd, tmp_path: Path
) -> None:
    service = offer(strategy, **complete(strategy))
    fields, secrets = strategy.Settings.base_fields, secret_names(strategy)
    for name, field in fields.items():
        before = stored().settings
        value = another(name, field, before[name])
        if name in secrets:
            value = private_key() if name == "private_key" else "another-secret-of-the-two"
        refused = way({name: value}, tmp_path)
        label = field.label or name.replace("_", " ").capitalize()
        demanded = [one for one in secrets if name in secret_destinations(strategy, one)]
        wanted = dict.fromkeys(demanded, f"{label} has changed. {AGAIN}")
        if way is by_file:  # it tells one mistake
            wanted = dict(list(wanted.items())[:1])
        if way is by_admin and name in secrets and demanded:
            wanted[name] = "Enter it again: it is not taken before all else is right."
        assert refused == wanted, name
        assert (stored().settings == before) == bool(wanted or name == "private_key"), name
        service.refresh_from_db()
        service.settings = complete(strategy)
        service.save()


# Where it is sent, for one service


ELSEWHERE = "https://elsewhere.example/introspect"


@pytest.fixture
def introspection(nagra: HeadEnd) -> Service:
    strategy = strategies()["token_introspection"]
    return offer(strategy, **complete(strategy))


@EACH_WAY
@pytest.mark.parametrize("secret", ["the secret of a client", "another"], ids=["same", "other"])
def test_entered_again_it_goes_to_the_new_address(
    introspection: Service, way: Way, secret: str, tmp_path: Path
) -> None:
    assert way({"address": ELSEWHERE, "client_secret": secret}, tmp_path) == {}
    assert stored().settings_with_secrets()["address"] == ELSEWHERE
    assert stored().secrets() == {"client_secret": secret}
    assert is_placeholder(stored().settings["client_secret"])


def test_a_file_that_gives_the_secret_moves_it_once(
    introspection: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = introspection.settings | {"address": ELSEWHERE, "client_secret": {"env": "A_SECRET"}}
    (tmp_path / "secret").write_text("the secret of a client")
    place = "tenants[0].services[0].settings.client_secret"
    told = f"{place}: Introspection endpoint has changed. {AGAIN}"
    assert apply("token_introspection", settings, tmp_path) == told
    assert apply("token_introspection", settings | {"client_secret": None}, tmp_path).startswith(place)
    assert stored().settings == introspection.settings
    monkeypatch.setenv("A_SECRET", "the secret of a client")
    moved = apply("token_introspection", settings, tmp_path)
    assert moved == (
        f"~ service nagra/{NAME}: settings.address {introspection.settings['address']} -> {ELSEWHERE}"
    )
    assert apply("token_introspection", settings, tmp_path) == "nothing to do"
    back = introspection.settings | {"client_secret": {"file": "secret"}}
    assert apply("token_introspection", back, tmp_path).startswith("~")


def test_several_changes_are_told_together(introspection: Service, tmp_path: Path) -> None:
    changes = {"address": ELSEWHERE, "client_id": "other", "ca_certificates": ""}
    told = f"CA certificates, Introspection endpoint and Client ID have changed. {AGAIN}"
    assert by_admin(changes, tmp_path) == {"client_secret": told}


def test_the_page_says_what_demands_it_again(introspection: Service, admin_client: Client) -> None:
    page = admin_client.get(f"/admin/tenants/service/{introspection.pk}/change/").content.decode()
    assert "If you change CA certificates, Introspection endpoint or Client ID, enter it again." in page


@pytest.mark.parametrize("enabled", [True, False])
def test_what_the_form_takes_for_the_same_is_the_same(
    introspection: Service, admin_client: Client, enabled: bool
) -> None:
    Service.unscoped.update(enabled=enabled)
    certificates = introspection.settings["ca_certificates"].replace("\n", "\r\n")
    changes = {"address": f" {introspection.settings['address']} ", "ca_certificates": certificates}
    assert post(admin_client, changes).status_code == 302


def test_a_setting_that_was_added_since_has_its_default(introspection: Service, tmp_path: Path) -> None:
    without = {n: v for n, v in introspection.settings.items() if n != "ca_certificates"}
    Service.unscoped.filter(pk=introspection.pk).update(settings=without)
    assert by_code({"clock_skew": 1}, tmp_path) == {}


@EACH_WAY
def test_of_a_disabled_service_it_is_not_sent_elsewhere_either(
    introspection: Service, way: Way, settings: Any, tmp_path: Path
) -> None:
    Service.unscoped.update(enabled=False)
    assert list(way({"address": ELSEWHERE}, tmp_path)) == ["client_secret"]
    settings.AGS_ENCRYPTION_KEYS = (NEW,)  # nothing opens it now, and it may be opened later
    service = stored()
    service.settings["address"] = ELSEWHERE
    with pytest.raises(ValidationError, match=AGAIN):
        service.save()


@EACH_WAY
def test_one_that_is_removed_stands_in_no_way(nagra: HeadEnd, way: Way, tmp_path: Path) -> None:
    strategy = strategies()["operator_login"]
    offer(strategy, **settings_at(strategy, 1), encryption="none")
    changes = {"address": ELSEWHERE, "authentication": "none", "secret": None}
    if way is by_admin:
        changes |= {"secret": "", "secret-remove": "on"}
    assert way(changes, tmp_path) == {}
    assert (stored().settings["address"], stored().sealed_secrets) == (ELSEWHERE, None)


def test_one_that_was_no_secret_when_it_was_stored_stays_with_its_destination(
    introspection: Service, tmp_path: Path
) -> None:
    plain = introspection.settings | {"client_secret": "the secret of a client"}
    Service.unscoped.filter(pk=introspection.pk).update(settings=plain, sealed_secrets=None)
    assert list(by_code({"address": ELSEWHERE}, tmp_path)) == ["client_secret"]
    assert by_code({"address": ELSEWHERE, "client_secret": "another"}, tmp_path) == {}


# What tries to send it elsewhere


@pytest.fixture
def elsewhere() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def test_to_change_the_address_and_to_try_it_sends_the_secret_nowhere(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    browser = staff()
    assert post(browser, {"address": f"{elsewhere.url}/introspect"}).status_code == 200
    tried = browser.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert tried.status_code == 200
    assert not elsewhere.asked
    assert post(browser, {"address": f"{elsewhere.url}/x", "client_secret": "mine"}).status_code == 302
    browser.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert len(elsewhere.asked) == 1, "and this is how it would have arrived"


def test_settings_that_are_not_stored_are_not_tried_elsewhere(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    introspection.settings["address"] = f"{elsewhere.url}/introspect"
    told = [finding.message for finding in check_service(introspection)]
    assert told == [f"Setting client_secret: Introspection endpoint has changed. {AGAIN}"]
    introspection.settings["client_secret"] = "mine"
    list(check_service(introspection))
    assert len(elsewhere.asked) == 1


def test_a_copy_takes_no_secret_elsewhere(introspection: Service) -> None:
    copy = stored()
    copy.pk, copy.name, copy._state.adding = None, "Copy", True
    copy.settings["address"] = ELSEWHERE
    with pytest.raises(ValidationError, match=AGAIN):
        copy.save()
    with pytest.raises(ValidationError, match=AGAIN):
        copy.settings_with_secrets()


@pytest.mark.parametrize("enabled", [True, False])
def test_settings_of_the_history_are_not_brought_back_with_the_secret_of_today(
    introspection: Service, enabled: bool, tmp_path: Path
) -> None:
    assert by_code({"address": ELSEWHERE, "client_secret": "of today"}, tmp_path) == {}
    row = stored()
    before = row.history.earliest()
    again = Service(
        pk=row.pk,
        tenant_id="nagra",
        name=NAME,
        strategy=row.strategy,
        display_name="x",
        enabled=enabled,
        settings=before.settings,
        sealed_secrets=row.sealed_secrets,
    )
    with pytest.raises(ValidationError, match="client_secret: Nothing is stored: enter it"):
        again.save()
    row.settings = before.settings
    with pytest.raises(ValidationError, match=AGAIN):
        row.save()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    "changes", [{"strategy": "dummy"}, {"tenant_id": "sunrise"}], ids=["strategy", "tenant"]
)
def test_tenant_and_strategy_never_change(
    introspection: Service, sunrise: HeadEnd, changes: dict[str, str], enabled: bool
) -> None:
    Service.unscoped.filter(pk=introspection.pk).update(enabled=enabled)
    service = stored()
    for name, value in changes.items():
        setattr(service, name, value)
    with pytest.raises(ValidationError, match="Tenant and strategy never change"):
        service.save()


def test_a_mark_brings_back_no_secret_that_was_removed_while_nothing_opened_it(
    nagra: HeadEnd, settings: Any, tmp_path: Path
) -> None:
    strategy = strategies()["operator_login"]
    offer(strategy, **complete(strategy), authentication="basic")
    Service.unscoped.update(enabled=False)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert by_code({"secret": None, "authentication": "none", "private_key": private_key()}, tmp_path) == {}
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    assert by_code({"secret": "sealed:00000000", "address": ELSEWHERE}, tmp_path)["secret"]


# Two at once


STALE: dict[str, tuple[dict[str, Any], dict[str, Any], bool]] = {
    "the old address comes back": (
        {"address": ELSEWHERE, "client_secret": "for elsewhere"},
        {"clock_skew": 1},
        False,
    ),
    "a third address": (
        {"address": ELSEWHERE, "client_secret": "for elsewhere"},
        {"address": "https://third.example/"},
        False,
    ),
    "another address for a new secret": ({"client_secret": "new"}, {"address": ELSEWHERE}, False),
    "the same address for a new secret": ({"client_secret": "new"}, {"clock_skew": 1}, True),
    "a secret of its own": (
        {"address": ELSEWHERE, "client_secret": "for elsewhere"},
        {"address": "https://third.example/", "client_secret": "for the third"},
        True,
    ),
}


@pytest.mark.parametrize(("meanwhile", "mine", "saved"), STALE.values(), ids=STALE)
def test_who_was_slower_sends_no_secret_of_the_other_elsewhere(
    introspection: Service, meanwhile: dict[str, Any], mine: dict[str, Any], saved: bool, tmp_path: Path
) -> None:
    opened = stored()
    assert by_code(meanwhile, tmp_path) == {}
    between = stored()
    opened.settings |= mine
    if saved:
        opened.save()
    else:
        for _ in range(2):  # to try again is no way round it
            with pytest.raises(ValidationError, match=f"client_secret: .*{AGAIN}"):
                opened.save()
        assert stored().settings == between.settings
    wanted = (between.settings_with_secrets() | mine)["client_secret"]
    assert stored().settings_with_secrets()["client_secret"] == wanted


def test_an_old_page_is_refused_with_the_reason(introspection: Service, admin_client: Client) -> None:
    opened = {"address": introspection.settings["address"]}
    assert post(admin_client, {"address": ELSEWHERE, "client_secret": "for elsewhere"}).status_code == 302
    page = post(admin_client, opened)
    assert f"Introspection endpoint has changed. {AGAIN}" in page.content.decode()
    assert stored().settings["address"] == ELSEWHERE
