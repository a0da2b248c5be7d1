"""The admin page that explains requests."""

from collections.abc import Mapping
from typing import Any, ClassVar

from django.contrib import admin
from django.http import HttpRequest

from ags.explanations.lookup import explain_absence, explain_request
from ags.explanations.models import ExplainedRequest
from ags.sessions.admin.event import SEARCH_TIMEOUT, TOO_MANY
from ags.sessions.admin.forms import ExplanationSearchForm
from ags.sessions.admin.search_only import SearchOnlyAdmin
from ags.sessions.admin.timeouts import StatementTimeout, statement_timeout
from ags.sessions.models import Event
from tenants.models import tenants_for_user


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
            with statement_timeout(SEARCH_TIMEOUT):
                explanations = explain_request(terms["correlation_id"], tenants)
                reasons = [] if explanations else explain_absence(tenants)
        except StatementTimeout:
            return {"failure": TOO_MANY}
        return {
            "explanations": explanations,
            "reasons": reasons,
            "correlation_id": terms["correlation_id"],
        }


def _tenant_ids(request: HttpRequest) -> list[str] | None:
    """Return the tenants that the user may see now; None for all, and for requests of no tenant."""
    if request.user.has_perm("tenants.all_tenants"):
        return None
    return list(tenants_for_user(request.user).values_list("pk", flat=True))
