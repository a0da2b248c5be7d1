"""Admin pages that explain requests, and of the links with which other companies read an explanation."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import display

from ags.explanations import links
from ags.explanations.lookup import explain_absence, explain_event, explain_request
from ags.explanations.models import ExplainedRequest, ExplanationLink
from ags.sessions.admin import timeouts
from ags.sessions.admin.event import TOO_MANY
from ags.sessions.admin.forms import ExplanationSearchForm
from ags.sessions.admin.search_only import SearchOnlyAdmin
from ags.sessions.admin.timeouts import StatementTimeout, statement_timeout
from ags.sessions.models import Event
from tenants.admin.base import LabelledValue
from tenants.admin.transitions import Transition, TransitionAdmin
from tenants.models import tenants_for_user
from tenants.times import format_utc

EXPLAIN_PAGE = "admin:ags_explanations_explainedrequest_changelist"

LINK_WARNING = (
    "This is the only time that the link is shown. It reveals reasons that the response withheld: send it to "
    "the company that sent the request, and to nobody else."
)


@admin.register(ExplainedRequest)
class ExplainedRequestAdmin(SearchOnlyAdmin):
    """A search for a correlation ID. The rows have pages in the audit trail, and none here."""

    search_form = ExplanationSearchForm
    search_template = "ags_explanations/admin/explain.html"
    title = "Explain a request"
    columns: ClassVar = {}

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("ags_sessions.view_event")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> None:
        return None

    def search_data(self, request: HttpRequest) -> Any:
        """Accept the query parameters of the audit trail. Raises Http404."""
        return self.admin_site.get_model_admin(Event).search_data(request)

    def search_context(self, request: HttpRequest, terms: Mapping[str, Any]) -> dict[str, Any]:
        tenants = _tenant_ids(request)
        try:
            with statement_timeout(timeouts.SEARCH_TIMEOUT):
                explanations = explain_request(terms["correlation_id"], tenants)
                reasons = [] if explanations else explain_absence(tenants)
        except StatementTimeout:
            return {"failure": TOO_MANY}
        return {
            "explanations": explanations,
            "reasons": reasons,
            "correlation_id": terms["correlation_id"],
            "create_link_url": reverse("admin:ags_explanations_explanationlink_add")
            if _may_link(request)
            else "",
        }


@admin.register(ExplanationLink)
class ExplanationLinkAdmin(TransitionAdmin):
    """The links of the user's tenants. They are created on the page that explains the request."""

    list_display = (
        "__str__",
        "tenant",
        "correlation_id",
        "state_label",
        "created_at",
        "created_by",
        "expires_at",
    )
    list_select_related = ("tenant",)
    search_fields = ("tenant__id__exact", "correlation_id__exact")
    search_help_text = "A tenant ID, or the correlation ID of the request."
    ordering = ("-pk",)
    fields = (
        "tenant",
        "correlation_id",
        "state_label",
        "created_at",
        "created_by",
        "expires_at",
        "revoked_at",
    )
    readonly_fields = ("state_label",)
    transitions = (
        Transition(
            name="revoke",
            label="Revoke",
            permission="revoke",
            method="revoke_link",
            title="Revoke this link?",
            consequences=(
                "{row.created_by} created it for the request {row.correlation_id} of {row.tenant_id}. It is "
                "{row.state}.",
                "From now on it does not open. This cannot be undone.",
                "Who has opened it may have kept the explanation.",
            ),
            done="The link is revoked.",
        ),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _may_link(request)

    has_change_permission = TransitionAdmin.has_delete_permission

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("ags_explanations.change_explanationlink")

    @display(description="State", label={"valid": "success", "expired": "info", "revoked": "danger"})
    def state_label(self, link: ExplanationLink) -> str:
        return link.state

    def is_offered(self, transition: Transition, row: ExplanationLink) -> bool:
        return row.state == "valid"

    def revoke_link(self, request: HttpRequest, link: ExplanationLink, _: Transition) -> None:
        links.revoke_link(link)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Create a link to the request of an event, and show it once."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        if request.method != "POST":
            return redirect(EXPLAIN_PAGE)
        explanation = explain_event(request.POST.get("event", ""), _tenant_ids(request))
        if explanation is None:
            raise Http404
        try:
            link = links.create_link(explanation, request.user.get_username())
        except ValidationError as error:
            messages.error(request, "Not done. " + " ".join(error.messages))
            return redirect(EXPLAIN_PAGE)
        self.log_addition(request, link, "Created.")
        values = [
            LabelledValue("Tenant", link.tenant_id),
            LabelledValue("Request", explanation.heading),
            LabelledValue("Valid until", format_utc(link.expires_at)),
            LabelledValue(
                "To revoke it earlier", "Choose Revoke on the next page, or later on the page of the link."
            ),
        ]
        url = LabelledValue("Link", request.build_absolute_uri(links.build_path(link)), "link")
        page = reverse("admin:ags_explanations_explanationlink_change", args=[link.pk])
        return self.show_once(
            request, "Link created: copy it now", values, url, page, kind="link", warning=LINK_WARNING
        )


def _may_link(request: HttpRequest) -> bool:
    """Return whether the user may create links: to what they may read themselves."""
    return request.user.has_perms(["ags_explanations.add_explanationlink", "ags_sessions.view_event"])


def _tenant_ids(request: HttpRequest) -> list[str] | None:
    """Return the tenants that the user may see now; None for all, and for requests of no tenant."""
    if request.user.has_perm("tenants.all_tenants"):
        return None
    return list(tenants_for_user(request.user).values_list("pk", flat=True))
