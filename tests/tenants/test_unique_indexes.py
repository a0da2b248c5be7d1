"""What is unique is so within a tenant, so that tenants can be told apart into several databases."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import Model

from ags.sessions.models import Lease
from tenants.models import Tenant

OURS = [
    model
    for model in apps.get_models()
    if model.__module__.split(".")[0] in ("ags", "tenants", "providers") and model not in (Tenant, Lease)
]


@pytest.mark.parametrize("model", OURS)
def test_the_tenant_leads_every_unique_index(db: None, model: type[Model]) -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, model._meta.db_table)
    # As the database has them, whatever way they came to be.
    unique = {name: one for name, one in found.items() if one["unique"] and not one["primary_key"]}
    is_history = hasattr(model, "instance_type")  # of which only the numbers are unique
    assert bool(unique) is not is_history
    for name, index in unique.items():
        assert index["columns"][0] == "tenant_id", name
