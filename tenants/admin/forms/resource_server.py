"""The form of a resource server."""

from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedModelForm
from tenants.models import ResourceServer


class NewResourceServerForm(TenantScopedModelForm):
    tenant = TenantChoiceField(
        ResourceServer, "The tenant whose tokens it introspects. It cannot be changed later."
    )

    class Meta:
        model = ResourceServer
        fields = ("tenant", "name")
