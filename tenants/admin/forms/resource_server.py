"""The form of a resource server."""

from __future__ import annotations

from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedModelForm
from tenants.models import ResourceServer


class NewResourceServerForm(TenantScopedModelForm):
    """A resource server; its credentials are made for it."""

    tenant = TenantChoiceField(ResourceServer, "Whose tokens it asks about. It cannot be changed later.")

    class Meta:
        model = ResourceServer
        fields = ("tenant", "name")
