"""Rows of a tenant are queried with `for_tenant`, or with `unscoped`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.db.models import Manager, Model, UniqueConstraint

from ags.explanations.models import ExplanationLink
from ags.sessions.models import (
    Account,
    AccountChoice,
    Device,
    Event,
    Lease,
    Process,
    PurgeCount,
    RevokedAccessToken,
    SecurityEvent,
    SessionToken,
)
from ags.sessions.services.account_choice import create_choice
from ags.sessions.services.devices import NewDevice
from providers.contract import Account as AccountOption
from providers.contract import Choice
from tenants.models import (
    Assignment,
    DocumentHealth,
    Key,
    KeyUse,
    ResourceServer,
    Service,
    SigningKey,
    Tenant,
)
from tenants.scoping import ScopedManager, TenantScoped, UnscopedAccess
from tenants.snapshot import snapshot
from tests.support.audit_trail import request_context
from tests.support.clients import SERVICE, ClientApp, HeadEnd
from tests.support.explanation_pages import create_explanation_link
from tests.support.key_use import add_key_use
from tests.support.staff import person

FORM = "application/x-www-form-urlencoded"

MODELS = [
    model
    for model in apps.get_models()
    if model.__module__.split(".")[0] in ("ags", "tenants", "providers")
    and not hasattr(model, "instance_type")  # a history model, which only the admin reads
    and not model._meta.proxy  # has no table
]
# These belong to a database, not to a tenant.
UNSCOPED = (Tenant, Lease, PurgeCount, Process)
SCOPED = [model for model in MODELS if model not in UNSCOPED]

ACCESS: dict[str, Callable[[Any], Any]] = {
    "all": lambda objects: objects.all(),
    "filter": lambda objects: objects.filter(pk=1),
    "exclude": lambda objects: objects.exclude(pk=1),
    "get": lambda objects: objects.get(pk=1),
    "first": lambda objects: objects.first(),
    "count": lambda objects: objects.count(),
    "exists": lambda objects: objects.exists(),
    "create": lambda objects: objects.create(),
    "get_or_create": lambda objects: objects.get_or_create(pk=1),
    "bulk_create": lambda objects: objects.bulk_create([]),
    "update": lambda objects: objects.update(pk=1),
    "values": lambda objects: objects.values(),
    "none": lambda objects: objects.none(),
}


def test_the_list_of_models_is_complete() -> None:
    assert set(MODELS) == {
        Tenant,
        Assignment,
        Service,
        Key,
        SigningKey,
        ResourceServer,
        DocumentHealth,
        KeyUse,
        SessionToken,
        Account,
        AccountChoice,
        Device,
        Event,
        RevokedAccessToken,
        SecurityEvent,
        ExplanationLink,
        Lease,
        PurgeCount,
        Process,
    }


@pytest.mark.parametrize("model", SCOPED)
def test_every_tenant_model_is_scoped(model: type[Model]) -> None:
    assert issubclass(model, TenantScoped)
    assert isinstance(model.objects, ScopedManager)
    assert type(model._default_manager) is Manager, "the admin and dumpdata use the default manager"
    unique = [each.fields for each in model._meta.constraints if isinstance(each, UniqueConstraint)]
    assert unique or model in (Event, ExplanationLink), "they have only a primary key"
    assert all(fields[0] == "tenant" for fields in unique), "every constraint starts with the tenant"


@pytest.mark.parametrize("access", ACCESS.values(), ids=ACCESS)
@pytest.mark.parametrize("model", SCOPED)
def test_access_without_a_tenant_raises(db: None, model: Any, access: Callable[[Any], Any]) -> None:
    with pytest.raises(UnscopedAccess, match=rf"{model.__name__}\.objects needs for_tenant\(\)"):
        access(model.objects)


def _create_rows(head_end: HeadEnd) -> None:
    """Create one row of the tenant in each table."""
    SigningKey.objects.for_tenant(head_end.tenant_id).filter(state="staged").delete()
    person("auditor", head_end.tenant_id)
    server = ResourceServer(tenant_id=head_end.tenant_id, name="playback")
    secret = server.set_credentials()
    server.save()
    session_token = head_end.present(head_end.token()).json()["sessionToken"]
    app = ClientApp(head_end)
    tokens = app.redeem(session_token).json()
    tenant = snapshot.get_tenant(head_end.tenant_id)
    assert tenant is not None
    accounts = Choice((AccountOption("account-1", "First"), AccountOption("account-2", "Second")))
    async_to_sync(create_choice)(tenant, tenant.services[SERVICE], accounts, NewDevice({}), request_context())
    assert app.redeem(session_token).status_code == 401
    form = {"token": tokens["access_token"], "client_id": server.client_id, "client_secret": secret}
    assert head_end.client.post("/oauth/revoke", urlencode(form), FORM).status_code == 200
    create_explanation_link(head_end.tenant_id)
    DocumentHealth(tenant_id=head_end.tenant_id, address="https://keys.example/").save()
    add_key_use(head_end.kid, tenant_id=head_end.tenant_id)


def test_for_tenant_returns_only_rows_of_the_tenant(nagra: HeadEnd, sunrise: HeadEnd) -> None:
    for head_end in (nagra, sunrise):
        _create_rows(head_end)
    Event.unscoped.exclude(kind=Event.Kind.ACCESS_TOKEN_REVOKED).delete()  # of saving the rows
    for model in SCOPED:
        for tenant in ("nagra", Tenant.objects.get(pk="nagra")):
            (row,) = model.objects.for_tenant(tenant)  # type: ignore[attr-defined]
            assert row.tenant_id == "nagra"
        assert model.unscoped.count() == 2, model  # type: ignore[attr-defined]
        assert not model.objects.for_tenant("nobody").exists()  # type: ignore[attr-defined]


def test_for_tenant_returns_a_queryset(nagra: HeadEnd) -> None:
    assert Service.objects.for_tenant("nagra").filter(name=SERVICE).exists()
    assert not Service.objects.for_tenant("nagra").exclude(name=SERVICE).exists()
