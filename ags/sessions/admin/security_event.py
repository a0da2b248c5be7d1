"""The pages of security events: the newest of all tenants, of one, or of one account."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import display

from ags.sessions.admin.forms import SecurityEventSearchForm
from ags.sessions.admin.search_only import SearchOnlyAdmin, moment
from ags.sessions.models import AccountChoice, Device, SecurityEvent, SessionToken


@admin.register(SecurityEvent)
class SecurityEventAdmin(SearchOnlyAdmin):
    """What points at a stolen token."""

    search_form = SecurityEventSearchForm
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

    def search_data(self, request: HttpRequest) -> Any:
        """Show the newest at once; an address may name a tenant."""
        return {"tenant": request.GET.get("tenant", "")}

    def row_cells(self, row: SecurityEvent) -> list[Any]:
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
        """The session token, the choice of an account or the device, and the way to it while it is there."""
        match event.kind:
            case SecurityEvent.Kind.SESSION_TOKEN_REUSED:
                return _session_token(event)
            case SecurityEvent.Kind.USER_ACCOUNT_TOKEN_REUSED:
                return _choice(event)
        device = Device.objects.for_tenant(event.tenant_id).filter(sign_on=event.subject).first()
        if device is None:
            return "A sign-on that a later one of the same device has replaced, or whose device is purged"
        page = reverse("admin:ags_sessions_device_change", args=[device.pk])
        return format_html('<a class="text-link" href="{}">The sign-on of device {}</a>', page, device)


def _session_token(event: SecurityEvent) -> SafeString | str:
    name = f"Session token {event.subject}"
    if not SessionToken.objects.for_tenant(event.tenant_id).filter(pk=event.subject).exists():
        return f"{name}, which is purged"
    page = reverse("admin:ags_sessions_sessiontoken_change", args=[event.subject])
    return format_html('<a class="text-link" href="{}">{}</a>', page, name)


def _choice(event: SecurityEvent) -> str:
    name = f"Choice of an account {event.subject}"
    choices = AccountChoice.objects.for_tenant(event.tenant_id).select_related("service")
    choice = choices.filter(pk=event.subject).first()
    if choice is None:
        return f"{name}, which is purged"
    return (
        f"{name}, offered by service {choice.service} at {moment(choice.created_at)} UTC under the "
        f"correlation ID {choice.correlation_id}"
    )
