"""Base of the admin pages of data about subscribers, which can be searched but not browsed or edited."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.crypto import get_random_string
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import display

from ags.sessions.admin.forms import SearchForm
from ags.sessions.models import Event
from ags.sessions.services.account_status import change_status
from tenants.admin.transitions import Transition, TransitionAdmin
from tenants.models import tenants_for_user

MAX_RESULTS = 100
"""Rows that a search shows, the newest ones."""

RESULT_PARAM = "result"
"""The query parameter with the key of a search in the session."""

SEARCHES_SESSION_KEY = "look_ups"
"""Session key of the searches: {key: [model name, terms]}, newest last."""

MAX_SEARCHES = 20
"""Searches that a session keeps."""

EMPTY_VALUE = "—"

STATE_COLORS = {"live": "success", "expired": "info", "redeemed": "info"}
"""Unfold label colors of states. All other states are reasons for invalidity."""


class SearchOnlyAdmin(TransitionAdmin):
    """Search terms are sent by POST so that account IDs do not appear in URLs.

    They are kept in the session, so that results are shown by GET and work with the browser's history.
    """

    search_form: ClassVar[type[SearchForm]]
    search_template: ClassVar[str] = "ags_sessions/admin/search.html"
    title: ClassVar[str]
    columns: ClassVar[Mapping[str, Callable[[Any], Any]]]
    """The headers of the results, and the functions that return their cells for a row."""
    newest_first: ClassVar[tuple[str, ...]] = ("-created_at", "-pk")
    # True if there are transitions, which Django logs.
    keeps_history: ClassVar[bool] = False
    change_form_outer_before_template = "ags_sessions/admin/wrap.html"
    state_field = "status"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    has_change_permission = TransitionAdmin.has_delete_permission

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return bool(request.user.has_perm(f"ags_sessions.change_{self.opts.model_name}"))

    def has_terminate_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """For actions that set a final status."""
        return bool(request.user.has_perm(f"ags_sessions.delete_{self.opts.model_name}"))

    def set_state(self, request: HttpRequest, row: Any, transition: Transition) -> None:
        change_status(row, transition.sources or (), transition.target, action=transition.name)

    @display(description="State", label=STATE_COLORS)
    def state_label(self, row: Any) -> str:
        """For rows with the annotation `state`."""
        return format_code(row.state)

    def get_search_form(self, request: HttpRequest, *args: Any, **kwargs: Any) -> SearchForm:
        return self.search_form(tenants_for_user(request.user), *args, **kwargs)

    def search_data(self, request: HttpRequest) -> Any:
        """Return the form data of a search that is executed before the form is submitted, or None."""
        return None

    @method_decorator(sensitive_post_parameters("token"))
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A valid POST redirects to its result."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        terms = None
        if request.method == "POST":  # first: the form of a result page is submitted to the URL of the result
            form = self.get_search_form(request, request.POST)
            if form.is_valid():
                key = _store_search(request, self.opts.model_name, form.search_terms())
                return redirect(f"{request.path}?{urlencode({RESULT_PARAM: key})}")
        elif RESULT_PARAM in request.GET:
            terms = _load_search(request, self.opts.model_name)
            form = self.get_search_form(request, initial=terms)
            if terms is None:
                messages.warning(request, "This search has expired. Enter it again.")
        else:
            form = self.get_search_form(request, self.search_data(request))
            terms = form.search_terms() if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "title": self.title,
            "form": form,
            "media": self.media + form.media,
            "opts": self.opts,
            "has_add_permission": self.has_add_permission(request),
        }
        if terms is not None:
            context |= self.search_context(request, terms)
        return TemplateResponse(request, self.search_template, context)

    def search_context(self, request: HttpRequest, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Return the context of the result. The user may have lost tenants since the terms were stored."""
        # get_queryset() is limited to the tenants of the user, for any terms
        rows = self.get_queryset(request).filter(**self.search_form.filters(terms))
        return self.table_context(rows)

    def table_context(self, queryset: QuerySet[Any]) -> dict[str, Any]:
        return self.rows_context(queryset.order_by(*self.newest_first)[: MAX_RESULTS + 1])

    def rows_context(self, rows: Iterable[Any]) -> dict[str, Any]:
        """Return the context of a table. `rows`: one more than are shown, if there are more."""
        cells = [[cell(row) for cell in self.columns.values()] for row in rows]
        more = f"More than {MAX_RESULTS} rows match. The newest {MAX_RESULTS} are shown."
        return {
            "table": {"headers": list(self.columns), "rows": cells[:MAX_RESULTS]},
            "more": more if len(cells) > MAX_RESULTS else "",
            "none": f"No {self.opts.verbose_name} matches.",
        }

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """Return the row with the attribute `links`, for fields that link to other pages."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            row.links = PageLinks(request)
        return row

    @display(description="Audit trail")
    def audit_trail_link(self, row: Any) -> SafeString | str:
        return row.links.audit_trail(row, "Events of this " + str(self.opts.verbose_name))

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        context |= {
            "show_history": self.keeps_history,
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.keeps_history:
            raise Http404
        return super().history_view(request, object_id, extra_context)


def _store_search(request: HttpRequest, model_name: str | None, terms: Mapping[str, Any]) -> str:
    searches = dict(list(request.session.get(SEARCHES_SESSION_KEY, {}).items())[1 - MAX_SEARCHES :])
    key = get_random_string(12)
    request.session[SEARCHES_SESSION_KEY] = searches | {key: [model_name, terms]}
    return key


def _load_search(request: HttpRequest, model_name: str | None) -> dict[str, Any] | None:
    searches = request.session.get(SEARCHES_SESSION_KEY, {})
    stored_model_name, terms = searches.get(request.GET.get(RESULT_PARAM), (None, None))
    return terms if stored_model_name == model_name else None


@dataclass(frozen=True, slots=True)
class PageLinks:
    """Links to the pages that the user of the request may see."""

    request: HttpRequest

    def page(self, row: Model | None, text: str) -> SafeString | str:
        """Link to the page of a row. Without a row or the permission, return the text."""
        if row is None or not self.may_view(type(row)):
            return text or EMPTY_VALUE
        return change_link(row, text)

    def audit_trail(self, row: Model, text: str, param: str = "") -> SafeString | str:
        """Link to a search in the audit trail, by the primary key of a row. `param`: instead of its model."""
        return self._search("ags_sessions_event", row, text, param)

    def explanation(self, row: Model, param: str = "") -> SafeString | str:
        """Link to the explanation of a request, with the same arguments as `audit_trail`."""
        return self._search("ags_explanations_explainedrequest", row, "Explain", param)

    def of_request(self, row: Model, param: str = "") -> SafeString | str:
        """Link to all events of a request, and to its explanation."""
        if not self.may_view(Event):
            return EMPTY_VALUE
        events = self.audit_trail(row, "All events with this correlation ID", param)
        return format_html("{} · {}", events, self.explanation(row, param))

    def _search(self, page: str, row: Model, text: str, param: str) -> SafeString | str:
        if not self.may_view(Event):
            return EMPTY_VALUE
        query = urlencode({param or str(row._meta.model_name): row.pk})
        url = reverse(f"admin:{page}_changelist")
        return format_html('<a class="text-link" href="{}?{}">{}</a>', url, query, text)

    def may_view(self, model: type[Model]) -> bool:
        return admin.site.get_model_admin(model).has_view_permission(self.request)


def change_link(row: Model, text: str) -> SafeString:
    url = reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a class="text-link" href="{}">{}</a>', url, text)


def format_time(time: Any) -> str:
    return EMPTY_VALUE if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def format_code(code: str) -> str:
    """Format a reason code or a state: `sign_on_ended` becomes "sign-on ended"."""
    return code.replace("sign_on", "sign-on").replace("_", " ")
