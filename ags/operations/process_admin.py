"""The admin page of the processes: when a change of the configuration has reached all of them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import display

from ags.operations.processes import Propagation, read_propagation, running_processes
from ags.sessions.models import Process
from tenants.admin.base import BoundedAdmin
from tenants.times import format_utc

REFRESH_INTERVAL = 2
"""Seconds after which the browser loads the page again while a process is behind."""

MAX_NAMED = 10
"""Processes that the summary names."""


@admin.register(Process)
class ProcessAdmin(BoundedAdmin):
    """Read only. It shows no tenant, so all staff who may view tenants may view it."""

    tenant_lookup = None
    list_display = ("host", "process_id", "release", "configuration_version", "reported_at_label")
    # A page of its own for each: without a link, narrow screens show "Select record" above the host.
    fields = ("host", "process_id", "release", "configuration_version", "reported_at_label")
    readonly_fields = fields
    list_before_template = "ags/processes.html"
    ordering = ("host", "process_id", "pk")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return bool(request.user.has_perm("tenants.view_tenant"))

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.has_module_permission(request)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def get_queryset(self, request: HttpRequest) -> QuerySet[Process]:
        return running_processes()

    @display(description="Last report (UTC)")
    def reported_at_label(self, process: Process) -> str:
        return format_utc(process.reported_at)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        propagation = read_propagation()
        context = {
            "title": "Processes",
            "summary": summarize(propagation),
            "is_complete": is_complete(propagation),
        }
        response: HttpResponse = super().changelist_view(request, {**(extra_context or {}), **context})
        if not is_complete(propagation):
            response.headers["Refresh"] = str(REFRESH_INTERVAL)
        return response


def is_complete(propagation: Propagation) -> bool:
    return bool(propagation.processes) and not propagation.behind


def summarize(propagation: Propagation) -> str:
    """Return whether all processes serve the latest version."""
    number, behind = len(propagation.processes), propagation.behind
    if not number:
        return f"No process has reported. The latest configuration is version {propagation.version}."
    if not behind:
        processes = "The only process serves" if number == 1 else f"All {number} processes serve"
        return f"{processes} the latest configuration, version {propagation.version}."
    names = [f"{each} (version {each.configuration_version})" for each in behind[:MAX_NAMED]]
    if len(behind) > MAX_NAMED:
        names.append("others")
    verb = "does" if len(behind) == 1 else "do"
    return (
        f"{len(behind)} of {number} processes {verb} not serve the latest configuration, version "
        f"{propagation.version}, yet: {', '.join(names)}."
    )
