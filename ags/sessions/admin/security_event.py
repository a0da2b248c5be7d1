"""The pages of security events: the newest of all tenants, of one, or of one account."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from ags.sessions.admin.look_up import LookUpAdmin, moment
from ags.sessions.forms import SecurityEventLookUp
from ags.sessions.models import Device, SecurityEvent


@admin.register(SecurityEvent)
class SecurityEventAdmin(LookUpAdmin):
    """What points at a stolen token."""

    look_up = SecurityEventLookUp
    title = "Security events"
    columns = ("latest (UTC)", "what", "tenant", "account ID", "times", "first (UTC)", "correlation ID")
    newest_first = ("-latest_at", "-pk")
    fields = (
        "tenant",
        "kind",
        "about",
        "account_id",
        "times",
        "first_at",
        "latest_at",
        "correlation_id",
    )
    readonly_fields = ("about",)

    def asked(self, request: HttpRequest) -> Any:
        """Show the newest at once; an address may name a tenant."""
        return request.POST or {"tenant": request.GET.get("tenant", "")}

    def cells(self, row: SecurityEvent) -> list[Any]:
        """Return what the table says of an event."""
        return [
            self.link(row, moment(row.latest_at)),
            row.get_kind_display(),
            row.tenant_id,
            row.account_id,
            row.times,
            moment(row.first_at),
            row.correlation_id,
        ]

    @display(description="What it is about")
    def about(self, event: SecurityEvent) -> SafeString | str:
        """The session token or the device, and the way to it while it is there."""
        if event.kind == SecurityEvent.Kind.SESSION_TOKEN_REUSED:
            page = reverse("admin:ags_sessions_sessiontoken_change", args=[event.subject])
            return format_html('<a class="text-link" href="{}">Session token {}</a>', page, event.subject)
        device = Device.objects.for_tenant(event.tenant_id).filter(sign_on=event.subject).first()
        if device is None:
            return "A sign-on that a later one of the same device has replaced"
        page = reverse("admin:ags_sessions_device_change", args=[device.pk])
        return format_html('<a class="text-link" href="{}">The sign-on of device {}</a>', page, device)
