"""The pages of tenants."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from unfold.decorators import display

from tenants.admin.forms import TenantForm
from tenants.admin.revoke_issued import RevokeIssuedAdmin, revoke_issued_transition
from tenants.admin.signing_key_rotation import SigningKeyRotationAdmin, rotate_transition
from tenants.admin.transitions import (
    EnabledAdmin,
    disable_transition,
    enable_transition,
)
from tenants.models import Algorithm, SigningKey, Tenant
from tenants.models.editable_fields import editable_fields

RELATED_LISTS = {
    "service": "Services",
    "key": "Keys",
    "signingkey": "Signing keys",
    "resourceserver": "Resource servers",
}


AUDIT_TRAIL = ("event_retention",)
"""The fields of the audit trail. All others are about sign-ons and tokens."""


@admin.register(Tenant)
class TenantAdmin(EnabledAdmin, RevokeIssuedAdmin, SigningKeyRotationAdmin):
    """An operator: whether it is enabled, and the tokens of its client apps."""

    form = TenantForm
    list_display = ("id", "name", "status_label", "related_links")
    search_fields = ("id__istartswith", "name__icontains")
    search_help_text = "The start of the ID, or a part of the name."
    list_filter = ("enabled",)
    allowed_lookups = ("enabled__exact",)
    ordering = ("id",)
    tenant_lookup = "pk__in"
    transitions = (
        enable_transition(
            "tenant {row}", "Requests with nv-tenant-id {row} are accepted again, within a second."
        ),
        disable_transition(
            "tenant {row}",
            "Every request with nv-tenant-id {row} is refused from now on.",
            "Devices that have signed on are refused as well, until it is enabled again.",
            "Its services and keys are not changed, and work again once it is enabled.",
        ),
        rotate_transition("{row}"),
        revoke_issued_transition(
            "tenant {row}", "The tenant itself is not changed; anything it issues from now on is valid."
        ),
    )

    def get_fieldsets(self, request: HttpRequest, obj: Tenant | None = None) -> list[Any]:
        row_fields = ("enabled",) if obj is None else ("status_label", "related_links")
        elsewhere = ("name", "enabled", *AUDIT_TRAIL)
        rules = [name for name in editable_fields(Tenant) if name not in elsewhere]
        return [
            (None, {"fields": ("id", "name", *row_fields)}),
            ("Sign-ons and tokens", {"fields": rules}),
            ("Audit trail", {"fields": AUDIT_TRAIL}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Tenant | None = None) -> tuple[str, ...]:
        """Return the fields that never change: head-ends send the ID, and tokens contain it."""
        return () if obj is None else ("id", "status_label", "related_links")

    def response_add(
        self, request: HttpRequest, obj: Tenant, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Show the secret of the first signing key, if the platform shares it."""
        if obj.signing_algorithm == Algorithm.HS256:
            key = SigningKey.objects.for_tenant(obj).get()
            return self.show_key_secret(request, key, "Tenant added: copy the secret of its signing key now")
        return super().response_add(request, obj, post_url_continue)

    @display(description="Related")
    def related_links(self, tenant: Tenant) -> SafeString:
        query = urlencode({"tenant__id__exact": tenant.pk})
        return format_html_join(
            " · ",
            '<a class="text-link" href="{}?{}">{}</a>',
            (
                (reverse(f"admin:tenants_{model}_changelist"), query, label)
                for model, label in RELATED_LISTS.items()
            ),
        )
