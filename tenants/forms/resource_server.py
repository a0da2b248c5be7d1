"""The form of a resource server."""

from __future__ import annotations

from tenants.forms.of_tenant import ChoiceOfTenant, NewOfTenant
from tenants.models import ResourceServer


class NewResourceServerForm(NewOfTenant):
    """A resource server; its credentials are made for it."""

    tenant = ChoiceOfTenant(ResourceServer, "Whose tokens it asks about. It cannot be changed later.")

    class Meta:
        model = ResourceServer
        fields = ("tenant", "name")
