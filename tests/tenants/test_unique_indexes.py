"""Every unique index starts with the tenant, so that tenants can be distributed over several databases."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import Model

from ags.explanations.models import ExplanationLink
from ags.sessions.models import Event, Lease, Process, PurgeCount
from tenants.models import Tenant

MODELS = [
    model
    for model in apps.get_models()
    if model.__module__.split(".")[0] in ("ags", "tenants", "providers")
    and model not in (Tenant, Lease, Process, PurgeCount)
    and not model._meta.proxy  # has no table
]


@pytest.mark.parametrize("model", MODELS)
def test_the_tenant_leads_every_unique_index(db: None, model: type[Model]) -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, model._meta.db_table)
    # From the database, not from the models, so that indexes of migrations are included.
    unique = {name: one for name, one in constraints.items() if one["unique"] and not one["primary_key"]}
    has_only_a_primary_key = hasattr(model, "instance_type") or model in (Event, ExplanationLink)
    assert bool(unique) is not has_only_a_primary_key
    for name, index in unique.items():
        assert index["columns"][0] == "tenant_id", name
