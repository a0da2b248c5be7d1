"""Services with secrets, and the interfaces that change their settings."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
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
from providers.registry import provider_configs
from tenants.models import Service
from tenants.secrets.service_secrets import is_placeholder, secret_names
from tests.support.change_form import form_version
from tests.support.provider_examples import settings_at
from tests.support.staff import person

NAME = "Offered"
REENTER = "Enter the secret again."
SHIPPED = {
    config.instance.slug: config.instance
    for config in provider_configs()
    if config.instance is not None and config.name.startswith("providers.") and secret_names(config.instance)
}


EVERY_STRATEGY = pytest.mark.parametrize("strategy", SHIPPED.values(), ids=SHIPPED)


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
            return next(choice for choice, _ in field.choices if choice != value)  # type: ignore[misc, union-attr]
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
ELSEWHERE = "https://elsewhere.example/introspect"
