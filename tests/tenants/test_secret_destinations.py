"""A stored secret must be entered again if a setting changes where it is sent."""

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
from tests.support.change_form import form_version
from tests.support.clients import HeadEnd
from tests.support.configuration import ENCRYPTION_KEY as OLD
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.provider_examples import settings_at
from tests.support.staff import person
from tests.support.upstream.https import HTTPSServer

NAME = "Offered"
REENTER = "Enter the secret again."
SHIPPED = {
    config.instance.slug: config.instance
    for config in provider_configs()
    if config.instance is not None and config.name.startswith("providers.") and secret_names(config.instance)
}
EVERY_STRATEGY = pytest.mark.parametrize("strategy", SHIPPED.values(), ids=SHIPPED)

DESTINATIONS = {
    ("dummy", "passphrase"): set(),
    ("ldap", "bind_password"): {"host", "port", "transport", "ca_certificates", "bind_dn"},
    ("operator_login", "private_key"): {"address", "ca_certificates"},
    ("operator_login", "secret"): {"address", "ca_certificates", "user"},
    ("radius", "line_password"): {"host", "port", "shared_secret"},
    ("radius", "line_secret"): set(),
    ("radius", "shared_secret"): {"host", "port"},
    ("token_introspection", "client_secret"): {"address", "ca_certificates", "client_id"},
}


@EVERY_STRATEGY
def test_the_destinations_of_the_secrets_of_shipped_providers(strategy: Strategy) -> None:
    for secret in secret_names(strategy):
        assert secret_destinations(strategy, secret).keys() == DESTINATIONS[strategy.slug, secret]


@cache
def private_key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode().strip()


def complete(strategy: Strategy) -> dict[str, Any]:
    """Return example settings, extended so that each setting can be changed alone."""
    more: dict[str, dict[str, Any]] = {
        "dummy": {"passphrase": "a passphrase"},
        "ldap": {"status_attribute": "status", "suspended_value": "suspended"},
        "operator_login": {"secret": "a-secret", "private_key": private_key()},
        "radius": {"line_secret": "l" * 16, "line_password": "line"},
    }
    settings = settings_at(strategy, 4711) | more.get(strategy.slug, {})
    assert {name for name in secret_names(strategy) if settings.get(name)} == set(secret_names(strategy))
    return settings


FORMATTED_VALUES = {
    "bind_dn": "cn=other,dc=operator,dc=example",
    "search_base": "dc=other,dc=example",
    "user_filter": "(cn={username})",
    "ca_certificates": "",
}


def different_value(name: str, field: forms.Field, value: Any) -> Any:
    """Return a different valid value."""
    match field:
        case _ if name in FORMATTED_VALUES:
            return FORMATTED_VALUES[name]
        case forms.ChoiceField():
            return next(choice for choice, _ in field.choices if choice != value)  # type: ignore[misc]
        case forms.IntegerField():
            return field.max_value if field.max_value != value else field.min_value
        case HTTPSField():
            return "https://other.example/"
        case HostField():
            return "other.example"
    return "other"


def create_service(strategy: Strategy, **changes: Any) -> Service:
    service = Service(
        tenant_id="nagra", name=NAME, strategy=strategy.slug, display_name="x", enabled=True, settings=changes
    )
    service.save()
    return stored()


def stored() -> Service:
    return Service.objects.for_tenant("nagra").get(name=NAME)


# Each function changes settings, keeps all other secrets, and returns the errors by setting


def change_in_code(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    service = stored()
    service.settings |= changes
    try:
        service.save()
    except ValidationError as error:
        return dict(message.split(": ", 1) for message in error.message_dict["settings"])
    return {}


def change_in_admin(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    response = post(staff_client(), changes)
    if response.status_code == 302:
        return {}
    errors = response.context["adminform"].form.errors
    return {name.removeprefix("settings-"): " ".join(messages) for name, messages in errors.items()}


def staff_client() -> Client:
    """Return the client of a staff user who may edit the services of nagra."""
    user = User.objects.filter(username="operator staff of nagra").first()
    if user is None:
        return person("operator staff", "nagra")
    client = Client()
    client.force_login(user)
    return client


def change_address(service: Service) -> str:
    return f"/admin/tenants/service/{service.pk}/change/"


def post(client: Client, changes: Mapping[str, Any], version: str | None = None) -> Any:
    """Submit the form with these settings: the form as it is now, or that with this version."""
    service = stored()
    shown = {name: "" if is_placeholder(value) else value for name, value in service.settings.items()}
    sent = {f"settings-{name}": value for name, value in (shown | dict(changes)).items()}
    fields = {"name": service.name, "display_name": "x", "logo": "", "enabled": "on"}
    address = change_address(service)
    fields["version"] = form_version(client, address) if version is None else version
    return client.post(address, fields | sent)


def change_in_file(changes: Mapping[str, Any], tmp_path: Path) -> dict[str, str]:
    service = stored()
    settings = {n: {"env": "NOT_SET_HERE"} if is_placeholder(v) else v for n, v in service.settings.items()}
    output = apply(service.strategy, settings | dict(changes), tmp_path)
    path, _, message = output.partition(": ")
    if not message or "[0]" not in path:
        return {}
    return {path.removeprefix("tenants[0].services[0].settings."): message}


def apply(strategy: str, settings: Mapping[str, Any], tmp_path: Path) -> str:
    """Return the first line of output, or the error message."""
    service = {"name": NAME, "strategy": strategy, "settings": dict(settings)}
    path = tmp_path / "tenants.yaml"
    path.write_text(yaml.safe_dump({"tenants": [{"id": "nagra", "services": [service]}]}))
    out = io.StringIO()
    try:
        call_command("apply", str(path), stdout=out)
    except CommandError as error:
        return str(error)
    return out.getvalue().splitlines()[0]


Change = Callable[[Mapping[str, Any], Path], dict[str, str]]
CHANGES: dict[str, Change] = {"code": change_in_code, "admin": change_in_admin, "apply": change_in_file}
EACH_INTERFACE = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)


@EVERY_STRATEGY
@EACH_INTERFACE
def test_exactly_the_destination_settings_require_the_secret_again(
    strategy: Strategy, change: Change, nagra: HeadEnd, tmp_path: Path
) -> None:
    service = create_service(strategy, **complete(strategy))
    fields, secrets = strategy.Settings.base_fields, secret_names(strategy)
    for name, field in fields.items():
        before = stored().settings
        value = different_value(name, field, before[name])
        if name in secrets:
            value = private_key() if name == "private_key" else "another-secret-of-the-two"
        errors = change({name: value}, tmp_path)
        label = field.label or name.replace("_", " ").capitalize()
        affected = [secret for secret in secrets if name in secret_destinations(strategy, secret)]
        expected = dict.fromkeys(affected, f"{label} has changed. {REENTER}")
        if change is change_in_file:  # reports only the first error
            expected = dict(list(expected.items())[:1])
        if change is change_in_admin and name in secrets and affected:
            expected[name] = "Enter it again: it was not saved, because of the other errors."
        assert errors == expected, name
        assert (stored().settings == before) == bool(expected or name == "private_key"), name
        service.refresh_from_db()
        service.settings = complete(strategy)
        service.save()


# One service


ELSEWHERE = "https://elsewhere.example/introspect"


@pytest.fixture
def introspection(nagra: HeadEnd) -> Service:
    strategy = strategies()["token_introspection"]
    return create_service(strategy, **complete(strategy))


@EACH_INTERFACE
@pytest.mark.parametrize("secret", ["the secret of a client", "another"], ids=["same", "other"])
def test_a_secret_that_is_entered_again_is_saved_with_the_new_address(
    introspection: Service, change: Change, secret: str, tmp_path: Path
) -> None:
    assert change({"address": ELSEWHERE, "client_secret": secret}, tmp_path) == {}
    assert stored().settings_with_secrets()["address"] == ELSEWHERE
    assert stored().secrets() == {"client_secret": secret}
    assert is_placeholder(stored().settings["client_secret"])


def test_a_file_with_the_secret_can_change_the_address(
    introspection: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = introspection.settings | {"address": ELSEWHERE, "client_secret": {"env": "A_SECRET"}}
    (tmp_path / "secret").write_text("the secret of a client")
    path = "tenants[0].services[0].settings.client_secret"
    error = f"{path}: Introspection endpoint has changed. {REENTER}"
    assert apply("token_introspection", settings, tmp_path) == error
    assert apply("token_introspection", settings | {"client_secret": None}, tmp_path).startswith(path)
    assert stored().settings == introspection.settings
    monkeypatch.setenv("A_SECRET", "the secret of a client")
    output = apply("token_introspection", settings, tmp_path)
    assert output == (
        f"~ service nagra/{NAME}: settings.address {introspection.settings['address']} -> {ELSEWHERE}"
    )
    assert apply("token_introspection", settings, tmp_path) == "nothing to do"
    back = introspection.settings | {"client_secret": {"file": "secret"}}
    assert apply("token_introspection", back, tmp_path).startswith("~")


def test_several_changed_settings_are_listed_in_one_message(introspection: Service, tmp_path: Path) -> None:
    changes = {"address": ELSEWHERE, "client_id": "other", "ca_certificates": ""}
    message = f"CA certificates, Introspection endpoint and Client ID have changed. {REENTER}"
    assert change_in_admin(changes, tmp_path) == {"client_secret": message}


def test_the_form_lists_the_destination_settings(introspection: Service, admin_client: Client) -> None:
    page = admin_client.get(f"/admin/tenants/service/{introspection.pk}/change/").content.decode()
    assert "If you change CA certificates, Introspection endpoint or Client ID, enter it again." in page


@pytest.mark.parametrize("enabled", [True, False])
def test_values_that_are_equal_after_cleaning_are_unchanged(
    introspection: Service, admin_client: Client, enabled: bool
) -> None:
    Service.unscoped.update(enabled=enabled)
    certificates = introspection.settings["ca_certificates"].replace("\n", "\r\n")
    changes = {"address": f" {introspection.settings['address']} ", "ca_certificates": certificates}
    assert post(admin_client, changes).status_code == 302


def test_a_setting_that_was_added_later_has_its_default(introspection: Service, tmp_path: Path) -> None:
    without = {n: v for n, v in introspection.settings.items() if n != "ca_certificates"}
    Service.unscoped.filter(pk=introspection.pk).update(settings=without)
    assert change_in_code({"clock_skew": 1}, tmp_path) == {}


@EACH_INTERFACE
def test_the_secret_of_a_disabled_service_is_protected_too(
    introspection: Service, change: Change, settings: Any, tmp_path: Path
) -> None:
    Service.unscoped.update(enabled=False)
    assert list(change({"address": ELSEWHERE}, tmp_path)) == ["client_secret"]
    settings.AGS_ENCRYPTION_KEYS = (NEW,)  # it cannot be decrypted now, but may be later
    service = stored()
    service.settings["address"] = ELSEWHERE
    with pytest.raises(ValidationError, match=REENTER):
        service.save()


@EACH_INTERFACE
def test_a_removed_secret_does_not_prevent_a_change(nagra: HeadEnd, change: Change, tmp_path: Path) -> None:
    strategy = strategies()["operator_login"]
    create_service(strategy, **settings_at(strategy, 1), encryption="none")
    changes = {"address": ELSEWHERE, "authentication": "none", "secret": None}
    if change is change_in_admin:
        changes |= {"secret": "", "secret-remove": "on"}
    assert change(changes, tmp_path) == {}
    assert (stored().settings["address"], stored().sealed_secrets) == (ELSEWHERE, None)


def test_a_secret_that_was_stored_as_plain_text_is_protected_too(
    introspection: Service, tmp_path: Path
) -> None:
    plain = introspection.settings | {"client_secret": "the secret of a client"}
    Service.unscoped.filter(pk=introspection.pk).update(settings=plain, sealed_secrets=None)
    assert list(change_in_code({"address": ELSEWHERE}, tmp_path)) == ["client_secret"]
    assert change_in_code({"address": ELSEWHERE, "client_secret": "another"}, tmp_path) == {}


# Attempts to send the secret to another server


@pytest.fixture
def elsewhere() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def test_changing_the_address_and_checking_does_not_send_the_secret(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    client = staff_client()
    assert post(client, {"address": f"{elsewhere.url}/introspect"}).status_code == 200
    response = client.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert response.status_code == 200
    assert not elsewhere.requests
    assert post(client, {"address": f"{elsewhere.url}/x", "client_secret": "mine"}).status_code == 302
    client.post(f"/admin/tenants/service/{introspection.pk}/check-configuration/")
    assert len(elsewhere.requests) == 1, "a secret that is entered again is sent"


def test_unsaved_settings_are_not_checked_with_the_stored_secret(
    introspection: Service, elsewhere: HTTPSServer
) -> None:
    introspection.settings["address"] = f"{elsewhere.url}/introspect"
    messages = [result.message for result in check_service(introspection)]
    assert messages == [f"Setting client_secret: Introspection endpoint has changed. {REENTER}"]
    introspection.settings["client_secret"] = "mine"
    list(check_service(introspection))
    assert len(elsewhere.requests) == 1


def test_a_copy_of_a_service_cannot_send_the_secret_elsewhere(introspection: Service) -> None:
    copy = stored()
    copy.pk, copy.name, copy._state.adding = None, "Copy", True
    copy.settings["address"] = ELSEWHERE
    with pytest.raises(ValidationError, match=REENTER):
        copy.save()
    with pytest.raises(ValidationError, match=REENTER):
        copy.settings_with_secrets()


@pytest.mark.parametrize("enabled", [True, False])
def test_settings_of_the_history_cannot_be_restored_with_the_current_secret(
    introspection: Service, enabled: bool, tmp_path: Path
) -> None:
    assert change_in_code({"address": ELSEWHERE, "client_secret": "current"}, tmp_path) == {}
    row = stored()
    before = row.history.earliest()
    restored = Service(
        pk=row.pk,
        tenant_id="nagra",
        name=NAME,
        strategy=row.strategy,
        display_name="x",
        enabled=enabled,
        settings=before.settings,
        sealed_secrets=row.sealed_secrets,
    )
    with pytest.raises(ValidationError, match="client_secret: No secret is stored: enter it"):
        restored.save()
    row.settings = before.settings
    with pytest.raises(ValidationError, match=REENTER):
        row.save()


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(
    "changes", [{"strategy": "dummy"}, {"tenant_id": "sunrise"}], ids=["strategy", "tenant"]
)
def test_tenant_and_strategy_cannot_be_changed(
    introspection: Service, sunrise: HeadEnd, changes: dict[str, str], enabled: bool
) -> None:
    Service.unscoped.filter(pk=introspection.pk).update(enabled=enabled)
    service = stored()
    for name, value in changes.items():
        setattr(service, name, value)
    with pytest.raises(ValidationError, match="Tenant and strategy cannot be changed"):
        service.save()


def test_a_placeholder_does_not_restore_a_secret_that_was_removed_while_undecryptable(
    nagra: HeadEnd, settings: Any, tmp_path: Path
) -> None:
    strategy = strategies()["operator_login"]
    create_service(strategy, **complete(strategy), authentication="basic")
    Service.unscoped.update(enabled=False)
    settings.AGS_ENCRYPTION_KEYS = (NEW,)
    assert (
        change_in_code({"secret": None, "authentication": "none", "private_key": private_key()}, tmp_path)
        == {}
    )
    settings.AGS_ENCRYPTION_KEYS = (NEW, OLD)
    assert change_in_code({"secret": "sealed:00000000", "address": ELSEWHERE}, tmp_path)["secret"]


# Concurrent changes


STALE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the previous address": ({"address": ELSEWHERE, "client_secret": "for elsewhere"}, {"clock_skew": 1}),
    "a third address": (
        {"address": ELSEWHERE, "client_secret": "for elsewhere"},
        {"address": "https://third.example/"},
    ),
    "another address with a new secret": ({"client_secret": "new"}, {"address": ELSEWHERE}),
    "the same address with a new secret": ({"client_secret": "new"}, {"clock_skew": 1}),
}


@pytest.mark.parametrize(("concurrent", "changes"), STALE.values(), ids=STALE)
def test_a_stale_row_cannot_send_a_concurrently_changed_secret_elsewhere(
    introspection: Service, concurrent: dict[str, Any], changes: dict[str, Any], tmp_path: Path
) -> None:
    stale = stored()
    assert change_in_code(concurrent, tmp_path) == {}
    current = stored()
    stale.settings |= changes
    for _ in range(2):  # a second attempt fails too
        with pytest.raises(ValidationError, match="Changed by a command at "):
            stale.save()
    assert stored().settings == current.settings
    assert stored().secrets() == current.secrets()


def test_a_stale_admin_form_is_rejected_with_the_reason(introspection: Service, admin_client: Client) -> None:
    stale = {"address": introspection.settings["address"]}
    version = form_version(admin_client, change_address(introspection))
    assert post(admin_client, {"address": ELSEWHERE, "client_secret": "for elsewhere"}).status_code == 302
    page = post(admin_client, stale, version).content.decode()
    assert f"Introspection endpoint has changed. {REENTER}" in page
    assert "Changed by admin at " in page
    assert stored().settings["address"] == ELSEWHERE
