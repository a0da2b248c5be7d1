"""The fields of a model that staff and configuration files can set."""

from __future__ import annotations

from typing import Any

from django.db.models import Field, Model


def editable_fields(model: type[Model]) -> dict[str, Field[Any, Any]]:
    """Return the editable fields by name, in the order of the model, without its primary key and relations.

    The page of a tenant, `apply` and `export` get their fields from here: a new setting needs no other list.
    """
    return {
        field.name: field
        for field in model._meta.concrete_fields
        if field.editable and not field.primary_key and not field.is_relation
    }
