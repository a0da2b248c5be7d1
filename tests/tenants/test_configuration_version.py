"""The version of the whole configuration rises with each change of any model."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps

from tenants.models import (
    ConfigurationModel,
    SigningKey,
    Tenant,
    read_configuration_version,
)
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd
from tests.support.operators import create_platform
from tests.support.snapshot import read_versions

MODELS = [
    model for model in apps.get_models() if issubclass(model, ConfigurationModel) and not model._meta.proxy
]


def served_version() -> int:
    """Return the version that this process serves after it has read the versions."""
    read_versions()
    assert snapshot.configuration_version_text == str(snapshot.configuration_version).encode()
    return snapshot.configuration_version


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_each_change_of_a_model_raises_the_version(nagra: HeadEnd, model: Any) -> None:
    create_platform(nagra.tenant_id)
    row = model._base_manager.first()
    versions = [served_version()]
    row.save()
    versions.append(served_version())
    if model is not Tenant:
        row.delete()
        versions.append(served_version())
    assert versions == sorted(set(versions))
    assert versions[-1] == read_configuration_version()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_disabled_tenant_counts(nagra: HeadEnd, sunrise: HeadEnd, enabled: bool) -> None:
    before = served_version()
    tenant = Tenant.objects.get(pk=sunrise.tenant_id)
    tenant.enabled = enabled
    tenant.save()
    assert served_version() == before + 1


def test_the_version_rises_when_a_tenant_is_deleted(nagra: HeadEnd) -> None:
    Tenant(pk="another", name="Another").save()
    before = served_version()
    SigningKey.objects.for_tenant("another").delete()
    Tenant.objects.get(pk="another").delete()
    assert not Tenant.objects.filter(pk="another").exists()
    assert served_version() > before
    assert served_version() == Tenant.objects.get(pk=nagra.tenant_id).version


def test_a_secret_that_is_encrypted_again_is_no_change(nagra: HeadEnd) -> None:
    before = served_version()
    key = SigningKey.objects.for_tenant(nagra.tenant_id).first()
    assert key is not None
    key.reencrypt()
    assert served_version() == before
