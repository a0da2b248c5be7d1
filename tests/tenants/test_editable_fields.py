"""Every field that can be set is on the page of staff, is read by `apply` and is written by `export`."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from django.db import models
from django.test import Client

from ags.sessions.models import Event
from tenants.models import Key, Service, SigningKey, Tenant
from tenants.tenant_snapshot import Limits, TokenRules, load_tenant
from tests.support.change_form import submit_change

SECRET = "a secret of the operator, which has 64 bytes and suits HMAC-512!"
OF_A_NAME: dict[str, Any] = {
    "strategy": "operator_token",
    "settings": {"clock_skew": 31, "session_token_ttl": 301, "replay": "required", "max_lifetime": 61},
    "allowed_origins": ["https://tv.example", "capacitor://localhost"],
    "exempt_networks": ["10.1.0.0/16", "2001:db8::/32"],
}
"""The values of fields whose class does not show which values are valid."""


def other_value(field: Any, position: int) -> Any:
    """Return a valid value that is not the default."""
    if field.name in OF_A_NAME:
        return OF_A_NAME[field.name]
    if field.choices:
        return next(value for value, _ in field.choices if value != field.default)
    match field:
        case models.BooleanField():
            return not field.default
        case models.IntegerField():
            return (field.get_default() or 0) + 1
        case models.DateTimeField():
            return datetime(2030, 1, 1, tzinfo=UTC) + timedelta(days=position)
        case models.URLField():
            return "https://nova.example/logo.png"
    return f"Other {field.name}".replace(" ", "-")


def other_values(model: type[models.Model]) -> dict[str, Any]:
    """Return another value for each field of the model that can be set."""
    settable = [field for field in model._meta.concrete_fields if field.editable]
    return {
        field.name: other_value(field, position)
        for position, field in enumerate(settable)
        if not field.primary_key and not field.is_relation
    }


VALUES: dict[type[models.Model], dict[str, Any]] = {
    model: other_values(model) for model in (Tenant, Service, Key)
}


def stored(model: type[models.Model]) -> dict[str, Any]:
    row = model._base_manager.get()
    return {name: getattr(row, name) for name in VALUES[model]}


def in_file(model: type[models.Model], **members: Any) -> dict[str, Any]:
    times = {name: value.isoformat() for name, value in VALUES[model].items() if isinstance(value, datetime)}
    return VALUES[model] | times | members


def document() -> dict[str, Any]:
    services, keys = [in_file(Service)], [in_file(Key, secret={"text": SECRET})]
    return {"tenants": [{"id": "nova", **in_file(Tenant), "services": services, "keys": keys}]}


@pytest.fixture
def apply(db: None, tmp_path: Path) -> Callable[[str], list[str]]:
    def run(text: str) -> list[str]:
        path, out = tmp_path / "tenants.yaml", io.StringIO()
        path.write_text(text)
        call_command("apply", str(path), stdout=out)
        return out.getvalue().splitlines()

    return run


def export() -> str:
    out = io.StringIO()
    call_command("export", stdout=out)
    return out.getvalue()


def test_every_value_differs_from_the_default() -> None:
    for model, values in VALUES.items():
        assert [name for name, value in values.items() if value == getattr(model(), name)] == []


def test_apply_sets_every_field(apply: Callable[[str], list[str]]) -> None:
    assert len(apply(yaml.safe_dump(document()))) == 3
    assert {model: stored(model) for model in VALUES} == VALUES


def test_apply_changes_every_field_of_a_tenant(apply: Callable[[str], list[str]]) -> None:
    apply("tenants: [{id: nova, name: Nova}]")
    for name, value in in_file(Tenant).items():
        (line,) = apply(yaml.safe_dump({"tenants": [{"id": "nova", name: value}]}))
        assert line.startswith(f"~ tenant nova: {name} ")
    assert stored(Tenant) == VALUES[Tenant]


def test_export_writes_every_field_and_apply_restores_it(
    apply: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(yaml.safe_dump(document()))
    text = export()
    (tenant,) = yaml.safe_load(text)["tenants"]
    for model, entry in ((Tenant, tenant), (Service, *tenant["services"]), (Key, *tenant["keys"])):
        assert {name: entry[name] for name in VALUES[model]} == in_file(model)
    for model in (Key, Service, SigningKey, Event, Tenant):
        model._base_manager.all().delete()
    monkeypatch.setenv(tenant["keys"][0]["secret"]["env"], SECRET)
    monkeypatch.setenv(tenant["signing_secret"]["env"], SECRET)
    assert len(apply(text.replace("encoding: base64", "encoding: text"))) == 3
    assert {model: stored(model) for model in VALUES} == VALUES
    assert export() == text


def form_data(values: dict[str, Any]) -> dict[str, str]:
    data: dict[str, str] = {}
    for name, value in values.items():
        match value:
            case bool():
                data |= {name: "on"} if value else {}
            case dict():
                data |= {f"{name}-{member}": str(content) for member, content in value.items()}
            case list():
                data[name] = "\n".join(value)
            case datetime():
                data |= {f"{name}_0": f"{value:%Y-%m-%d}", f"{name}_1": f"{value:%H:%M:%S}"}
            case _:
                data[name] = str(value)
    return data


PAGES: dict[type[models.Model], tuple[str, dict[str, str]]] = {
    Tenant: ("tenant/add/", {"id": "nova"}),
    Service: ("service/add/?tenant=nova&strategy=operator_token", {}),
    Key: ("key/add/", {"tenant": "nova", "source": "enter", "encoding": "text", "secret": SECRET}),
}


@pytest.mark.parametrize("model", VALUES, ids=lambda model: model.__name__)
def test_staff_set_every_field(admin_client: Client, model: type[models.Model]) -> None:
    if model is not Tenant:
        Tenant(id="nova", name="Nova").save()
    page, other_data = PAGES[model]
    admin_client.post(f"/admin/tenants/{page}", form_data(VALUES[model]) | other_data)
    assert stored(model) == VALUES[model]


def test_staff_change_every_field_of_a_tenant(admin_client: Client) -> None:
    Tenant(id="nova", name="Nova").save()
    page = "/admin/tenants/tenant/nova/change/"
    shown = set(admin_client.get(page).context["adminform"].form.fields) - {"version"}
    assert shown == VALUES[Tenant].keys() - {"enabled"}
    assert submit_change(admin_client, page, form_data(VALUES[Tenant])).status_code == 302
    assert stored(Tenant) == VALUES[Tenant] | {"enabled": True}, "buttons enable and disable a tenant"


@pytest.mark.django_db
def test_every_token_rule_is_the_field_of_its_name() -> None:
    Tenant(id="nova", **VALUES[Tenant] | {"enabled": True}).save()
    snapshot = load_tenant("nova")
    assert snapshot is not None
    for rule in fields(TokenRules):
        assert getattr(snapshot.rules, rule.name) == VALUES[Tenant][rule.name]


@pytest.mark.django_db
def test_every_limit_is_the_field_of_its_name() -> None:
    Tenant(id="nova", **VALUES[Tenant] | {"enabled": True}).save()
    snapshot = load_tenant("nova")
    assert snapshot is not None
    for limit in fields(Limits):
        value = getattr(snapshot.limits, limit.name)
        assert (list(map(str, value)) if isinstance(value, tuple) else value) == VALUES[Tenant][limit.name]
