"""The pages of resource servers: the secret of each is shown once."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from tenants.admin.base import ConfigurationAdmin, LabelledValue
from tenants.admin.forms import NewResourceServerForm, VersionedModelForm, restricted_to
from tenants.admin.transitions import EnabledAdmin, disable_transition, enable_transition
from tenants.models import ResourceServer, tenants_for_user

NAME = "resource server {row.name} of {row.tenant_id}"


@admin.register(ResourceServer)
class ResourceServerAdmin(ConfigurationAdmin, EnabledAdmin):
    form = VersionedModelForm
    list_display = ("client_id", "name", "tenant_link", "status_label")
    search_fields = ("tenant__id__exact", "client_id__startswith")
    search_help_text = "A tenant ID, or the start of a client ID."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact", "tenant__id__exact")
    ordering = ("tenant_id", "client_id")
    readonly_fields = ("tenant_link", "client_id", "status_label")  # to replace credentials, add another one
    transitions = (
        enable_transition(NAME, "{row} may introspect and revoke tokens again, within a second."),
        disable_transition(
            NAME,
            "{row} is refused within a second: it can neither introspect nor revoke tokens.",
            "It can still verify access tokens offline, with the published key set.",
        ),
    )

    def get_form(
        self, request: HttpRequest, obj: ResourceServer | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = restricted_to(NewResourceServerForm, tenants_for_user(request.user))
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: ResourceServer | None = None) -> tuple[str, ...]:
        return ("tenant", "name") if obj is None else ("tenant_link", "client_id", "name", "status_label")

    def save_model(self, request: HttpRequest, obj: ResourceServer, form: Any, change: bool) -> None:
        """Save the row; generate the credentials of a new one, for `response_add`."""
        if not change:
            request.secret = obj.set_credentials()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(
        self, request: HttpRequest, obj: ResourceServer, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret, in this response only: AGS stores its hash."""
        values = [
            LabelledValue("Tenant", obj.tenant_id),
            LabelledValue("Name", obj.name),
            LabelledValue("Client ID", obj.client_id, "client-id"),
        ]
        secret = LabelledValue("Client secret", request.secret, "secret")  # type: ignore[attr-defined]
        next_url = reverse("admin:tenants_resourceserver_change", args=[obj.pk])
        return self.show_once(request, "Resource server added: copy its secret now", values, secret, next_url)
