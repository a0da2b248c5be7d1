"""The pages of a tenant."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from tenants.admin.pages import ConfigurationAdmin, Question
from tenants.models import Tenant

STATUS = {"enabled": "success", "disabled": "danger"}
"""How the two are coloured."""


@admin.register(Tenant)
class TenantAdmin(ConfigurationAdmin):
    """Whether an operator may come in at all."""

    list_display = ("id", "name", "status", "of_it")
    search_fields = ("id__istartswith", "name__icontains")
    search_help_text = "The start of the ID, or a part of the name."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact",)
    ordering = ("id",)
    of_tenants = "pk__in"
    actions_detail = ("enable", "disable")

    def get_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        """On the page of an existing one the switch is a button, and links lead to what it has."""
        return ("id", "name", "enabled") if obj is None else ("id", "name", "status", "of_it")

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        """The ID is what head-ends send and tokens name: it never changes."""
        return () if obj is None else ("id", "status", "of_it")

    @display(description="Status", label=STATUS)
    def status(self, tenant: Tenant) -> str:
        """Whether it is enabled."""
        return "enabled" if tenant.enabled else "disabled"

    @display(description="Services and keys")
    def of_it(self, tenant: Tenant) -> SafeString:
        """Where its services and keys are."""
        return format_html(
            '<a class="text-link" href="{}">Services</a> · <a class="text-link" href="{}">Keys</a>',
            list_of("service", tenant.pk),
            list_of("key", tenant.pk),
        )

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer the one of the two switches that does something."""
        return switch_of(self.found(request, object_id), super().get_actions_detail(request, object_id))

    @action(description="Enable", url_path="enable", permissions=["change"], variant=ActionVariant.SUCCESS)
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let the operator in."""
        tenant: Tenant = self.found(request, object_id)
        question = Question(
            title=f"Enable tenant {tenant}?",
            consequences=[f"Requests with nv-tenant-id {tenant} are answered again, within a second."],
            button="Enable",
            done=f"Tenant {tenant} is enabled.",
            dangerous=False,
        )
        return self.ask(request, tenant, question, lambda: switch(tenant, on=True))

    @action(description="Disable", url_path="disable", permissions=["change"], variant=ActionVariant.DANGER)
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Keep the operator out."""
        tenant: Tenant = self.found(request, object_id)
        question = Question(
            title=f"Disable tenant {tenant}?",
            consequences=[
                f"Every request with nv-tenant-id {tenant} is refused from this moment on.",
                "Its services and keys stay as they are, and work again once it is enabled.",
            ],
            button="Disable",
            done=f"Tenant {tenant} is disabled.",
        )
        return self.ask(request, tenant, question, lambda: switch(tenant, on=False))


def list_of(model: str, tenant_id: str) -> str:
    """Return the address of the services or keys of that tenant."""
    query = urlencode({"tenant__id__exact": tenant_id})
    return f"{reverse(f'admin:tenants_{model}_changelist')}?{query}"


def switch(row: Any, *, on: bool) -> None:
    """Store that a tenant or service is on or off, and nothing else. Raises ValidationError."""
    row.enabled = on
    row.save(update_fields=["enabled"])


def switch_of(row: Any, actions: list[Any]) -> list[Any]:
    """Leave out the switch to what the row is already."""
    idle = "_enable" if row.enabled else "_disable"
    return [one for one in actions if not one.action_name.endswith(idle)]
