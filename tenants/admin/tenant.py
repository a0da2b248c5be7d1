"""The pages of a tenant."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from tenants.admin.base import Confirmation
from tenants.admin.forms import TenantForm
from tenants.admin.revoke_issued_action import IssuingAdmin
from tenants.admin.signing_key import SigningAdmin
from tenants.models import Algorithm, SigningKey, Tenant

STATUS = {"enabled": "success", "disabled": "danger"}
"""How the two are coloured."""

LISTS = {
    "service": "Services",
    "key": "Keys",
    "signingkey": "Signing keys",
    "resourceserver": "Resource servers",
}
"""What belongs to a tenant."""

RULES = (
    "device_limit",
    "access_token_ttl",
    "refresh_token_ttl",
    "sign_on_ttl",
    "refresh_grace",
    "signing_algorithm",
    "issuer",
    "audience",
    "allowed_origins",
)


@admin.register(Tenant)
class TenantAdmin(IssuingAdmin, SigningAdmin):
    """Whether an operator may come in at all, and what its client apps get."""

    form = TenantForm
    list_display = ("id", "name", "status", "related_links")
    search_fields = ("id__istartswith", "name__icontains")
    search_help_text = "The start of the ID, or a part of the name."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact",)
    ordering = ("id",)
    of_tenants = "pk__in"
    actions_detail = ("enable", "disable", "rotate", "revoke_issued")

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> list[Any]:
        """On the page of an existing one the switch is a button, and links lead to what it has."""
        return [
            (
                None,
                {"fields": ("id", "name", *(("enabled",) if obj is None else ("status", "related_links")))},
            ),
            ("What its client apps get", {"fields": RULES}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        """The ID is what head-ends send and tokens name: it never changes."""
        return () if obj is None else ("id", "status", "related_links")

    def response_add(
        self, request: HttpRequest, obj: Tenant, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret of the first signing key, where the platform verifies with it."""
        if obj.signing_algorithm == Algorithm.HS256:
            key = SigningKey.objects.for_tenant(obj).get()
            title = "Tenant added: copy the secret of its signing key now"
            return self.show_signing_secret(request, key, title)
        response: HttpResponse = super().response_add(request, obj, post_url_continue)
        return response

    @display(description="Status", label=STATUS)
    def status(self, tenant: Tenant) -> str:
        """Whether it is enabled."""
        return "enabled" if tenant.enabled else "disabled"

    @display(description="What it has")
    def related_links(self, tenant: Tenant) -> SafeString:
        """Where its services and keys are."""
        return format_html_join(
            " · ",
            '<a class="text-link" href="{}">{}</a>',
            ((list_of(model, tenant.pk), label) for model, label in LISTS.items()),
        )

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer the one of the two switches that does something."""
        return switch_of(
            self.get_object_or_404(request, object_id), super().get_actions_detail(request, object_id)
        )

    @action(description="Enable", url_path="enable", permissions=["change"], variant=ActionVariant.SUCCESS)
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let the operator in."""
        tenant: Tenant = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Enable tenant {tenant}?",
            consequences=[f"Requests with nv-tenant-id {tenant} are answered again, within a second."],
            button="Enable",
            done=f"Tenant {tenant} is enabled.",
            dangerous=False,
        )
        return self.confirm(request, tenant, confirmation, lambda: switch(tenant, on=True))

    @action(description="Disable", url_path="disable", permissions=["change"], variant=ActionVariant.DANGER)
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Keep the operator out."""
        tenant: Tenant = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Disable tenant {tenant}?",
            consequences=[
                f"Every request with nv-tenant-id {tenant} is refused from this moment on.",
                "Who has signed on there is refused, too, until it is enabled again.",
                "Its services and keys stay as they are, and work again once it is enabled.",
            ],
            button="Disable",
            done=f"Tenant {tenant} is disabled.",
        )
        return self.confirm(request, tenant, confirmation, lambda: switch(tenant, on=False))


def list_of(model: str, tenant_id: str) -> str:
    """Return the address of what that tenant has of a kind."""
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
