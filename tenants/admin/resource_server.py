"""The pages of a resource server: its secret is shown once, and it is switched on and off."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from tenants.admin.base import ConfigurationAdmin, Confirmation, LabelledValue
from tenants.admin.forms import NewResourceServerForm, WhitespaceStrippingModelForm, restricted_to
from tenants.admin.tenant import STATUS, switch, switch_of
from tenants.models import ResourceServer, tenants_of


@admin.register(ResourceServer)
class ResourceServerAdmin(ConfigurationAdmin):
    """A service of the operator that asks AGS about access tokens."""

    list_display = ("client_id", "name", "owner", "status")
    search_fields = ("tenant__id__exact", "client_id__startswith")
    search_help_text = "A tenant ID, or the start of a client ID."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact", "tenant__id__exact")
    ordering = ("tenant_id", "client_id")
    actions_detail = ("enable", "disable")

    def get_form(
        self, request: HttpRequest, obj: ResourceServer | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form of a new one, or of its name."""
        new = obj is None
        kwargs["form"] = (
            restricted_to(NewResourceServerForm, tenants_of(request.user))
            if new
            else WhitespaceStrippingModelForm
        )
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: ResourceServer | None = None) -> tuple[str, ...]:
        """A new one needs a tenant and a name; later the switch is a button."""
        return ("tenant", "name") if obj is None else ("owner", "client_id", "name", "status")

    def get_readonly_fields(self, request: HttpRequest, obj: ResourceServer | None = None) -> tuple[str, ...]:
        """What it authenticates with never changes: a new secret is a new resource server."""
        return () if obj is None else ("owner", "client_id", "status")

    def save_model(self, request: HttpRequest, obj: ResourceServer, form: Any, change: bool) -> None:
        """Store it; a new one gets its credentials, which the answer to this request shows."""
        if not change:
            request.secret = obj.set_credentials()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ResourceServer, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, here and never again: only its hash is stored."""
        facts = [
            LabelledValue("Tenant", obj.tenant_id),
            LabelledValue("Name", obj.name),
            LabelledValue("Client ID", obj.client_id, "client-id"),
        ]
        secret = LabelledValue("Client secret", request.secret, "secret")  # type: ignore[attr-defined]
        page = reverse("admin:tenants_resourceserver_change", args=[obj.pk])
        return self.show_once(request, "Resource server added: copy its secret now", facts, secret, page)

    @display(description="Status", label=STATUS)
    def status(self, server: ResourceServer) -> str:
        """Whether it is enabled."""
        return "enabled" if server.enabled else "disabled"

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer the one of the two switches that does something."""
        return switch_of(
            self.get_object_or_404(request, object_id), super().get_actions_detail(request, object_id)
        )

    @action(description="Enable", url_path="enable", permissions=["change"], variant=ActionVariant.SUCCESS)
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Answer it."""
        server: ResourceServer = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Enable resource server {server.name} of {server.tenant_id}?",
            consequences=[f"{server} may ask about tokens and revoke them again, within a second."],
            button="Enable",
            done=f"Resource server {server.name} is enabled.",
            dangerous=False,
        )
        return self.confirm(request, server, confirmation, lambda: switch(server, on=True))

    @action(description="Disable", url_path="disable", permissions=["change"], variant=ActionVariant.DANGER)
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it."""
        server: ResourceServer = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Disable resource server {server.name} of {server.tenant_id}?",
            consequences=[
                f"{server} is refused within a second: it learns nothing of any token, and revokes none.",
                "What it verifies with the published key set alone it goes on verifying.",
            ],
            button="Disable",
            done=f"Resource server {server.name} is disabled.",
        )
        return self.confirm(request, server, confirmation, lambda: switch(server, on=False))
