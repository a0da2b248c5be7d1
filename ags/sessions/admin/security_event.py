"""Admin pages of security events."""

from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from ags.sessions.admin.forms import SecurityEventSearchForm
from ags.sessions.admin.search_only import SearchOnlyAdmin, change_link, format_time
from ags.sessions.models import AccountChoice, Device, SecurityEvent, SessionToken


@admin.register(SecurityEvent)
class SecurityEventAdmin(SearchOnlyAdmin):
    search_form = SecurityEventSearchForm
    title = "Security events"
    columns: ClassVar = {
        "latest (UTC)": lambda event: change_link(event, format_time(event.latest_at)),
        "event": lambda event: event.get_kind_display(),
        "tenant": lambda event: event.tenant_id,
        "account ID": lambda event: event.account_id,
        "times": lambda event: event.times,
        "first (UTC)": lambda event: format_time(event.first_at),
        "correlation ID": lambda event: event.correlation_id,
    }
    newest_first = ("-latest_at", "-pk")
    fields = (
        "tenant",
        "kind",
        "subject_link",
        "account_id",
        "times",
        "first_at",
        "latest_at",
        "correlation_id",
        "audit_trail_link",
    )
    readonly_fields = ("subject_link", "audit_trail_link")

    def search_data(self, request: HttpRequest) -> Any:
        """Show the newest events; the query parameter `tenant` limits them to a tenant."""
        return {"tenant": request.GET.get("tenant", "")}

    @display(description="Audit trail")
    def audit_trail_link(self, event: Any) -> SafeString | str:
        return event.links.of_request(event)

    @display(description="Subject")
    def subject_link(self, event: SecurityEvent) -> SafeString | str:
        match event.kind:
            case SecurityEvent.Kind.SESSION_TOKEN_REUSED:
                name = f"Session token {event.subject}"
                token = SessionToken.objects.for_tenant(event.tenant_id).filter(pk=event.subject).first()
                return f"{name} (purged)" if token is None else change_link(token, name)
            case SecurityEvent.Kind.USER_ACCOUNT_TOKEN_REUSED:
                return _describe_choice(event)
        device = Device.objects.for_tenant(event.tenant_id).filter(sign_on=event.subject).first()
        if device is None:
            return "A sign-on that was replaced by a later one, or whose device was purged"
        return change_link(device, f"The sign-on of device {device}")


def _describe_choice(event: SecurityEvent) -> str:
    name = f"Account choice {event.subject}"
    choices = AccountChoice.objects.for_tenant(event.tenant_id).select_related("service")
    choice = choices.filter(pk=event.subject).first()
    if choice is None:
        return f"{name} (purged)"
    return (
        f"{name}, created by service {choice.service} at {format_time(choice.created_at)} UTC, "
        f"correlation ID {choice.correlation_id}"
    )
