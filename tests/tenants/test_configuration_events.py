"""Changes of the configuration in the audit trail: one event each, in its transaction, without a secret."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from django import forms
from django.db import DatabaseError, connection, transaction
from django.test import Client
from django.utils import timezone

from ags.sessions.models import Event
from providers.contract import SecretField, SessionTokenSettings
from providers.registry import strategies
from tenants.models import ConfigurationModel, Key, ResourceServer, Service, SigningKey, Tenant
from tenants.revocation import revoke_issued
from tests.support import secret_settings
from tests.support.change_form import submit_change
from tests.support.clients import SERVICE, HeadEnd
from tests.support.events import (
    CORRELATION_ID,
    capture_events,
    change_of,
    check_no_secret,
    check_request,
    values_of,
)
from tests.support.operators import add_key
from tests.support.secret_settings import MARKER, OTHER
from tests.support.staff import NEW_KEY_FORM, SECRET_MARKER, TENANT_FORM, person

pytestmark = pytest.mark.django_db

TENANT = "/admin/tenants/tenant/nagra/"
CHANGED_TENANT = TENANT_FORM | {"name": "Nagra AG", "event_retention": "30"}
CHANGED_SERVICE = {
    "name": SERVICE,
    "display_name": "Sign on",
    "logo": "https://customer.example/auth.png",
    "settings-session_token_ttl": "120",
    "settings-clock_skew": "30",
    "settings-replay": "if_present",
    "settings-max_lifetime": "",
}


def page_of(row: Any, act: str = "change") -> str:
    return f"/admin/tenants/{row._meta.model_name}/{row.pk}/{act}/"


def submit(client: Client, address: str, data: Mapping[str, Any] | None = None) -> Event:
    """Submit a form that leaves exactly one event, and return it."""
    (event,) = capture_events(lambda: post(client, address, data))
    check_request(event)
    assert (event.kind, event.tenant_id) == (Event.Kind.CONFIGURATION_CHANGED, "nagra")
    return event


def post(client: Client, address: str, data: Mapping[str, Any] | None = None) -> Any:
    response = submit_change(client, address, data or {}, headers={"x-correlation-id": CORRELATION_ID})
    assert response.status_code == 302, response.content.decode()
    return response


def test_a_changed_tenant(admin_client: Client, nagra: HeadEnd) -> None:
    event = submit(admin_client, TENANT + "change/", CHANGED_TENANT)
    assert change_of(event) == ("tenant", "nagra", {"name": "Nagra"}, {"name": "Nagra AG"})
    assert event.reason == "change"
    assert (event.service, event.kid, event.account_id, event.client_id) == ("", "", "", "")


@pytest.mark.parametrize("model", [Tenant, Service])
def test_a_row_that_is_disabled_and_enabled(admin_client: Client, nagra: HeadEnd, model: Any) -> None:
    row = model._base_manager.get()
    event = submit(admin_client, page_of(row, "disable"))
    assert change_of(event) == (row._meta.model_name, str(row), {"enabled": True}, {"enabled": False})
    assert event.service == (SERVICE if model is Service else "")
    event = submit(admin_client, page_of(row, "enable"))
    assert values_of(event) == ({"enabled": False}, {"enabled": True})


def test_a_changed_service_has_only_the_settings_that_differ(admin_client: Client, nagra: HeadEnd) -> None:
    row = Service.unscoped.get()
    event = submit(admin_client, page_of(row), CHANGED_SERVICE)
    model, name, before, after = change_of(event)
    assert (model, name, event.service) == ("service", SERVICE, SERVICE)
    assert before["display_name"] == "Customer Authentication"
    assert after == {"display_name": "Sign on", "settings": {"session_token_ttl": 120}}
    assert before.keys() == after.keys()
    assert before["settings"] == {"session_token_ttl": 300}


def test_a_revoked_key(admin_client: Client, nagra: HeadEnd) -> None:
    event = submit(admin_client, page_of(Key.unscoped.get(), "revoke"))
    assert change_of(event) == ("key", nagra.kid, {"state": "active"}, {"state": "revoked"})
    assert event.kid == nagra.kid


@pytest.mark.parametrize("model", [Tenant, Service, Key])
def test_revoking_everything_issued(admin_client: Client, nagra: HeadEnd, model: Any) -> None:
    row = model._base_manager.get()
    event = submit(admin_client, page_of(row, "revoke-issued"))
    row.refresh_from_db()
    assert values_of(event) == (
        {"revoked_before": None},
        {"revoked_before": row.revoked_before.isoformat()},
    )


def test_an_added_key_shows_that_it_has_a_secret_and_nothing_of_it(
    admin_client: Client, nagra: HeadEnd
) -> None:
    form = NEW_KEY_FORM | {"source": "enter", "encoding": "text", "secret": SECRET_MARKER}
    event = submit(admin_client, "/admin/tenants/key/add/", form)
    row = Key.unscoped.get(kid="new-key")
    assert (event.reason, event.kid) == ("add", "new-key")
    assert change_of(event) == (
        "key",
        "new-key",
        None,
        {
            "kid": "new-key",
            "algorithm": "HS256",
            "state": "active",
            "secret": "set",
            "public_key": "",
            "created_at": row.created_at.isoformat(),
        },
    )


def test_an_added_resource_server(admin_client: Client, nagra: HeadEnd) -> None:
    address = "/admin/tenants/resourceserver/add/"
    data, headers = {"tenant": "nagra", "name": "Rights"}, {"x-correlation-id": CORRELATION_ID}
    (event,) = capture_events(lambda: admin_client.post(address, data, headers=headers))
    check_request(event)
    row = ResourceServer.unscoped.get()
    assert change_of(event) == (
        "resourceserver",
        row.client_id,
        None,
        {"client_id": row.client_id, "name": "Rights", "enabled": True, "secret": "set"},
    )
    event = submit(admin_client, page_of(row, "disable"))
    assert values_of(event) == ({"enabled": True}, {"enabled": False})


def test_an_added_tenant_leaves_an_event_for_it_and_each_of_its_signing_keys(admin_client: Client) -> None:
    data = CHANGED_TENANT | {"id": "nagra", "enabled": "on"}
    events = capture_events(lambda: post(admin_client, "/admin/tenants/tenant/add/", data))
    kids = [SigningKey.unscoped.get(state=state).kid for state in ("active", "staged")]
    assert [(change_of(event)[:2], event.kid) for event in events] == [
        (("tenant", "nagra"), ""),
        *((("signingkey", kid), kid) for kid in kids),
    ]
    assert all(event.tenant_id == "nagra" for event in events)


def test_a_rotation_leaves_an_event_for_each_key_that_changes(admin_client: Client, nagra: HeadEnd) -> None:
    first = SigningKey.unscoped.get(state="active")
    second = SigningKey.unscoped.get(state="staged")
    SigningKey.unscoped.filter(pk=second.pk).update(published_at=timezone.now() - timedelta(minutes=11))
    events = capture_events(lambda: post(admin_client, TENANT + "rotate/"))
    assert [(event.kid, event.details["after"]["state"]) for event in events] == [
        (first.kid, "retiring"),
        (second.kid, "active"),
        (SigningKey.unscoped.get(state="staged").kid, "staged"),
    ]
    assert (events[2].reason, events[2].details["after"]["secret"]) == ("add", "set")
    third = SigningKey.unscoped.get(state="staged")
    events = capture_events(lambda: post(admin_client, page_of(second, "revoke")))
    assert [(event.kid, event.details["after"]["state"]) for event in events] == [
        (second.kid, "revoked"),
        (third.kid, "active"),
        (SigningKey.unscoped.get(state="staged").kid, "staged"),
    ]


def test_staff_of_one_tenant_are_the_actor(nagra: HeadEnd) -> None:
    client = person("operator staff", "nagra")
    (event,) = capture_events(lambda: post(client, TENANT + "disable/"))
    check_request(event, "operator staff of nagra")


def test_a_form_without_changes_leaves_no_event(admin_client: Client, nagra: HeadEnd) -> None:
    unchanged = CHANGED_TENANT | {"name": "Nagra"}
    assert capture_events(lambda: post(admin_client, TENANT + "change/", unchanged)) == []


def test_a_refused_form_leaves_no_event(admin_client: Client, nagra: HeadEnd) -> None:
    def submit_old_form() -> None:
        admin_client.post(TENANT + "change/", CHANGED_TENANT | {"version": "0"})

    assert capture_events(submit_old_form) == []
    assert Tenant.objects.get().name == "Nagra"


# Secrets


def test_a_secret_setting_is_never_shown(admin_client: Client, nagra: HeadEnd) -> None:
    form = secret_settings.fields
    step_two = secret_settings.STEP_TWO
    added = submit(admin_client, step_two, form(passphrase=MARKER, enabled="on"))
    assert added.details["after"]["settings"]["passphrase"] == "set"
    assert added.details["after"]["secret"] == "set"
    page = secret_settings.change(secret_settings.stored())
    changed = submit(admin_client, page, form(passphrase=OTHER))
    assert values_of(changed) == (
        {"secret": "set", "settings": {"passphrase": "set"}},
        {"secret": "changed", "settings": {"passphrase": "changed"}},
    )
    removed = submit(admin_client, page, form(remove="on"))
    assert values_of(removed) == (
        {"secret": "set", "settings": {"passphrase": "set"}},
        {"secret": None, "settings": {"passphrase": ""}},
    )
    check_no_secret(MARKER, OTHER, "sealed:")


def test_a_setting_that_became_a_secret_is_not_shown(nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    class Before(SessionTokenSettings):
        passphrase = forms.CharField(required=False)
        plain = forms.CharField(required=False)

    class After(SessionTokenSettings):
        passphrase = SecretField(destination_settings=(), required=False)
        plain = forms.CharField(required=False)

    monkeypatch.setattr(strategies()["dummy"], "Settings", Before)
    row = secret_settings.create_service(enabled=False)
    Event.unscoped.all().delete()  # it was no secret
    monkeypatch.setattr(strategies()["dummy"], "Settings", After)
    row.refresh_from_db()
    row.settings["plain"] = "another"
    (event,) = capture_events(row.save)
    assert event.details["after"]["settings"]["plain"] == "another"
    row.refresh_from_db()
    monkeypatch.delitem(strategies(), "dummy")
    capture_events(row.delete)
    assert Event.unscoped.count() == 2
    check_no_secret(MARKER)


def test_no_event_has_a_hash_or_an_encrypted_secret(nagra: HeadEnd) -> None:
    row = ResourceServer(tenant_id="nagra", client_id="nagra~1", secret_hash=b"marker" * 5, name="x")
    row.save()
    key_row = Key.unscoped.get()
    key_row.sealed_secret = b"marker"
    key_row.save(validate=False)
    row.delete()
    assert Event.unscoped.count() == 3
    check_no_secret("marker", b"marker".hex())


# Transactions


def test_a_change_is_rolled_back_if_its_event_cannot_be_stored(nagra: HeadEnd) -> None:
    def refuse_events(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith('INSERT INTO "ags_sessions_event"'):
            raise DatabaseError
        return execute(sql, *args)

    rows: list[Any] = [model._base_manager.get() for model in (Tenant, Service, Key)]
    for row in rows:
        with connection.execute_wrapper(refuse_events), pytest.raises(DatabaseError):
            revoke_issued(row)
        row.refresh_from_db()
        assert row.revoked_before is None


def test_a_change_that_is_rolled_back_leaves_no_event(nagra: HeadEnd) -> None:
    def change_and_roll_back() -> None:
        with transaction.atomic():
            revoke_issued(Key.unscoped.get())
            transaction.set_rollback(True)

    assert capture_events(change_and_roll_back) == []


def test_the_values_before_are_those_of_the_database(nagra: HeadEnd) -> None:
    row, concurrent = Key.unscoped.get(), Key.unscoped.get()
    concurrent.state = "retiring"
    concurrent.save()
    (event,) = capture_events(lambda: row.save_restriction(state="revoked"))
    assert values_of(event) == ({"state": "retiring"}, {"state": "revoked"})
    row.state = "revoked"
    assert capture_events(lambda: row.save_restriction(state="revoked")) == []


def test_a_deleted_row(nagra: HeadEnd) -> None:
    row = add_key(HeadEnd("nagra", "second", bytes(range(50, 90))))
    (event,) = capture_events(row.delete)
    model, name, before, after = change_of(event)
    assert (event.reason, model, name, after) == ("delete", "key", "second", None)
    assert (before["kid"], before["state"], before["secret"]) == ("second", "active", "set")


def test_every_secret_of_the_configuration_is_a_binary_column(db: None) -> None:
    """`event_receivers` shows no value of a binary column, and those of all columns in the history."""
    for model in ConfigurationModel.__subclasses__():
        history: Any = model.history.model  # type: ignore[attr-defined]
        shown = {column.name for column in history.tracked_fields}
        hidden = {column.name for column in model._meta.concrete_fields} - shown
        binary = {
            column.name
            for column in model._meta.concrete_fields
            if column.get_internal_type() == "BinaryField"
        }
        assert hidden - {"version"} == binary, model
