"""A stored secret must be entered again if a setting changes where it is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from providers.contract import Strategy
from providers.registry import strategies
from tenants.models import Service
from tenants.secrets.service_secrets import is_placeholder, secret_destinations, secret_names
from tests.support.clients import HeadEnd
from tests.support.configuration import NEW_ENCRYPTION_KEY as NEW
from tests.support.provider_examples import settings_at
from tests.support.secret_destinations import (
    EACH_INTERFACE,
    ELSEWHERE,
    EVERY_STRATEGY,
    NAME,
    REENTER,
    Change,
    apply,
    change_in_admin,
    change_in_code,
    change_in_file,
    complete,
    create_service,
    different_value,
    post,
    private_key,
    stored,
)

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


# Each function changes settings, keeps all other secrets, and returns the errors by setting


@EVERY_STRATEGY
@EACH_INTERFACE
def test_exactly_the_destination_settings_require_the_secret_again(
    strategy: Strategy, change: Change, nagra: HeadEnd, tmp_path: Path
) -> None:
    service = create_service(strategy, **complete(strategy))
    fields, secrets = strategy.Settings.base_fields, secret_names(strategy)
    for name, field in fields.items():
        before = stored().settings
        value = different_value(name, field, before.get(name, field.initial))
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
