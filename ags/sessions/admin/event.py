"""Admin pages of the audit trail: a search for all events, and the page of an event with a row of its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import Model
from django.http import Http404, HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from ags.sessions.admin import timeouts
from ags.sessions.admin.details import format_details
from ags.sessions.admin.forms import MAX_TENANTS, EventSearchForm
from ags.sessions.admin.search_only import (
    EMPTY_VALUE,
    MAX_RESULTS,
    PageLinks,
    SearchOnlyAdmin,
    format_time,
)
from ags.sessions.admin.timeouts import StatementTimeout, statement_timeout
from ags.sessions.audit_trail import KINDS, AuditEvent, search
from ags.sessions.models import Account, Device, Event, SecurityEvent, SessionToken
from tenants.models import tenants_for_user

TOO_MANY = (
    "There are too many events to search. Narrow the time, or enter an account ID, client ID or correlation "
    "ID."
)

ROW_MODELS: Mapping[str, type[Model]] = {
    "event": Event,
    "security_event": SecurityEvent,
    "session_token": SessionToken,
}
"""By the first part of `AuditEvent.id`. The second is the primary key."""


LINKED_SEARCHES: Mapping[str, tuple[type[Model], str, str]] = {
    "account": (Account, "account_id", "account_id"),
    "device": (Device, "client_id", "client_id"),
    "sessiontoken": (SessionToken, "correlation_id", "correlation_id"),
    "redemption": (SessionToken, "correlation_id", "redemption_correlation_id"),
    "securityevent": (SecurityEvent, "correlation_id", "correlation_id"),
    "event": (Event, "correlation_id", "correlation_id"),
}
"""Searches by the primary key of a row, for URLs without search terms.

The model, the field of the form and the attribute of the row, by query parameter.
"""


@dataclass(frozen=True, slots=True)
class _Result:
    event: AuditEvent
    links: PageLinks

    def time_link(self) -> SafeString | str:
        """Link to the page of the row that is or contains the event."""
        kind, pk, *_ = self.event.id.split(":")
        return self.links.page(ROW_MODELS[kind](pk=pk), format_time(self.event.time))

    def explanation_link(self) -> SafeString | str:
        """Link to the explanation, if the user may view the row, from which the search begins."""
        kind, pk, *part = self.event.id.split(":")
        model = ROW_MODELS[kind]
        if not self.event.correlation_id or not self.links.may_view(model):
            return EMPTY_VALUE
        return self.links.explanation(model(pk=pk), "redemption" if part == ["redeemed"] else "")


def _cell(name: str) -> Callable[[_Result], str]:
    return lambda result: getattr(result.event, name) or EMPTY_VALUE


@admin.register(Event)
class EventAdmin(SearchOnlyAdmin):
    search_form = EventSearchForm
    title = "Audit trail"
    columns: ClassVar = {
        "time (UTC)": _Result.time_link,
        "kind": lambda result: KINDS.get(result.event.kind, result.event.kind),
        "explanation": _Result.explanation_link,
        "tenant": _cell("tenant_id"),
        "service": _cell("service"),
        "account ID": _cell("account_id"),
        "client ID": _cell("client_id"),
        "key ID": _cell("kid"),
        "client address": _cell("client_address"),
        "actor": _cell("actor"),
        "reason": _cell("reason"),
        "correlation ID": _cell("correlation_id"),
    }
    fieldsets = (
        (None, {"fields": ("created_at", "kind", "tenant", "actor", "reason", "details_table")}),
        (
            "Request",
            {"fields": ("correlation_id", "audit_trail_link", "client_address", "service", "kid")},
        ),
        ("Subscriber", {"fields": ("account_link", "device_link", "session_token_link")}),
    )
    readonly_fields = (
        "details_table",
        "audit_trail_link",
        "account_link",
        "device_link",
        "session_token_link",
    )

    def get_form(
        self, request: HttpRequest, obj: Event | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["labels"] = {"created_at": "Time", "kid": "Key ID"}
        return super().get_form(request, obj, change, **kwargs)

    def get_search_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> EventSearchForm:
        tenants = tenants_for_user(request.user)
        return EventSearchForm(tenants, *args, sees_all=_sees_all(request), **kwargs)

    def search_data(self, request: HttpRequest) -> Any:
        """Raises Http404 if the user may not see the row that a query parameter names."""
        for param, (model, field, attribute) in LINKED_SEARCHES.items():
            if param in request.GET:
                page = self.admin_site.get_model_admin(model)
                row: Any = page.get_object(request, request.GET[param])
                if row is None or not page.has_view_permission(request, row):
                    raise Http404
                return {"tenant": row.tenant_id or "", field: getattr(row, attribute) or ""}
        return None

    def search_context(self, request: HttpRequest, terms: Mapping[str, Any]) -> dict[str, Any]:
        try:
            with statement_timeout(timeouts.SEARCH_TIMEOUT):
                events = _search(_tenant_ids(request, terms), terms)
        except StatementTimeout:
            return {"failure": TOO_MANY}
        links = PageLinks(request)
        context = self.rows_context(_Result(event, links) for event in events)
        if "since" in terms:
            since = format_time(datetime.fromisoformat(terms["since"]))
            context["none"] += f" Events before {since} UTC were not searched."
        return context

    @display(description="Details")
    def details_table(self, event: Event) -> SafeString | str:
        return format_details(event.details)

    @display(description="Audit trail")
    def audit_trail_link(self, event: Event) -> SafeString | str:
        if not event.correlation_id:
            return EMPTY_VALUE
        links: PageLinks = event.links  # type: ignore[attr-defined] # set by get_object
        return links.of_request(event)

    @display(description="Account")
    def account_link(self, event: Event) -> SafeString | str:
        return _link(event, Account, event.account_id, account_id=event.account_id)

    @display(description="Device")
    def device_link(self, event: Event) -> SafeString | str:
        return _link(event, Device, event.client_id, client_id=event.client_id)

    @display(description="Session token")
    def session_token_link(self, event: Event) -> SafeString | str:
        """Events of staff name the row that they concern."""
        is_token = event.details.get("model") == "sessiontoken"
        pk = str(event.details.get("object", "")) if is_token else ""
        return _link(event, SessionToken, f"Session token {pk}", pk=pk) if pk.isdecimal() else EMPTY_VALUE


def _link(event: Any, model: Any, text: str, **lookup: Any) -> SafeString | str:
    """Link to the row of the event's tenant, if there is one."""
    row = (
        model.objects.for_tenant(event.tenant_id).filter(**lookup).first()
        if text and event.tenant_id
        else None
    )
    links: PageLinks = event.links
    return links.page(row, text)


def _sees_all(request: HttpRequest) -> bool:
    """Return whether the user may see events of no tenant."""
    return request.user.has_perm("tenants.all_tenants")


def _tenant_ids(request: HttpRequest, terms: Mapping[str, Any]) -> list[str | None]:
    """Return the tenants to search, of those that the user may see now. None: events of no tenant."""
    if "without_tenant" in terms:
        return [None] if _sees_all(request) else []
    tenants = tenants_for_user(request.user)
    if "tenant" in terms:
        return list(tenants.filter(pk=terms["tenant"]).values_list("pk", flat=True))
    tenant_ids = tenants.values_list("pk", flat=True)[:MAX_TENANTS]
    return [*tenant_ids, None] if _sees_all(request) else [*tenant_ids]


def _search(tenant_ids: list[str | None], terms: Mapping[str, Any]) -> list[AuditEvent]:
    """Return the newest events, one more than are shown."""
    events = {
        event.id: event
        for criteria in EventSearchForm.criteria(terms)
        for event in search(tenant_ids, criteria, MAX_RESULTS + 1)
    }
    return sorted(events.values(), key=attrgetter("time", "id"), reverse=True)[: MAX_RESULTS + 1]
