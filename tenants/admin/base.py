"""The bases of all pages of staff: limits that hold with a million rows, tenants, history, secrets."""

from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from django.contrib import admin, messages
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.decorators import display
from unfold.views import ChangeList

from tenants.admin.history import changes_of
from tenants.models import tenants_for_user
from tenants.whitespace import strip_whitespace

MAX_COUNT = 1000
"""Rows that a page counts at most."""

SEARCH_MAX_LENGTH = 255
"""Characters of a search term; no searched column is longer."""


class BoundedPaginator(Paginator):  # type: ignore[type-arg] # not generic at run time
    """Counts at most `MAX_COUNT` rows, and has pages for no more; a search finds the others."""

    template_name = "tenants/admin/pagination.html"

    @cached_property
    def count(self) -> int:
        return min(self._bounded_count, MAX_COUNT)

    @property
    def has_more(self) -> bool:
        return self._bounded_count > MAX_COUNT

    @cached_property
    def _bounded_count(self) -> int:
        return bounded_count(self.object_list)  # type: ignore[arg-type] # the admin gives it querysets


class BoundedList(ChangeList):
    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        """Set the rows of the page. The template shows the count of the paginator, and no other."""
        super().get_results(request)
        self.full_result_count = self.result_count
        if not self.multi_page:  # Django reads all rows then, also those added since it counted
            self.result_list = self.result_list[: self.list_per_page]


def add_propagation_link(message: str) -> SafeString:
    """Return the message about a change, with a link to the page that shows which processes serve it."""
    page = reverse("admin:ags_sessions_process_changelist")
    return format_html('{} <a class="text-link" href="{}">Do all processes serve it?</a>', message, page)


def bounded_count(rows: QuerySet[Any]) -> int:
    """Return the number of rows, at most `MAX_COUNT` + 1."""
    return rows.order_by()[: MAX_COUNT + 1].count()


def format_count(count: int) -> str:
    return f"more than {MAX_COUNT}" if count > MAX_COUNT else str(count or "none")


SHOWN_ONCE = (
    "This is the only time that the secret is shown. Give it to the operator over a secure channel. Do not "
    "save this page."
)


@dataclass(frozen=True, slots=True)
class LabelledValue:
    """A value on a page that shows a secret once. `id`: of the HTML element, if staff copy the value."""

    label: str
    value: str
    id: str = ""


class BoundedAdmin(ModelAdmin):
    """Base of all pages: each shows rows of the staff's own tenants, and a limited number of them."""

    actions: Any = None
    list_per_page = 50
    list_max_show_all = 0
    paginator: Any = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would count the table
    sortable_by: Any = ()  # only the order that an index has
    allowed_lookups: ClassVar[tuple[str, ...]] = ()
    tenant_lookup: ClassVar[str | None] = "tenant__in"
    """The lookup that filters rows by their tenant; None if they have none."""

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: QuerySet[Any] = super().get_queryset(request)
        if self.tenant_lookup is not None and not request.user.has_perm("tenants.all_tenants"):
            rows = rows.filter(**{self.tenant_lookup: tenants_for_user(request.user)})
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Return no row for a term that is too long: Django needs quadratic time to split it."""
        if len(search_term) > SEARCH_MAX_LENGTH:
            return queryset.none(), False
        search_term = strip_whitespace(search_term)
        return super().get_search_results(request, queryset, search_term)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return BoundedList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse all other fields in the query string: the results would reveal hidden values."""
        return lookup in self.allowed_lookups

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Return False: rows stay, so that each grant can be explained. Staff disable or revoke instead."""
        return False

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> NoReturn:
        # The row of another tenant is answered like a row that does not exist, on every page.
        raise Http404

    def get_object_or_404(self, request: HttpRequest, object_id: str) -> Any:
        """Raises Http404, also for a row of another tenant."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def show_once(
        self,
        request: HttpRequest,
        title: str,
        values: list[LabelledValue],
        secret: LabelledValue,
        next_url: str,
        *,
        kind: str = "secret",
        warning: str = SHOWN_ONCE,
    ) -> HttpResponse:
        """Show a secret in this response, and never again. `kind`: its name, on the button that copies it."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "values": values,
            "secret": secret,
            "kind": kind,
            "warning": warning,
            "opts": self.opts,
            "next_url": next_url,
        }
        return TemplateResponse(
            request, "tenants/admin/shown_once.html", context, headers={"Cache-Control": "no-store"}
        )


class ConfigurationAdmin(BoundedAdmin):
    list_before_template = "tenants/admin/tenant_heading.html"
    change_form_before_template = "tenants/admin/form_version.html"

    def message_user(
        self, request: HttpRequest, message: Any, level: Any = messages.INFO, *args: Any, **kwargs: Any
    ) -> None:
        """Show a message of Django's admin. If a change was saved, it links to the page of the processes."""
        if level == messages.SUCCESS:
            message = add_propagation_link(message)
        super().message_user(request, message, level, *args, **kwargs)

    @display(description="Tenant")
    def tenant_link(self, row: Any) -> SafeString:
        page = reverse("admin:tenants_tenant_change", args=[row.tenant_id])
        return format_html('<a class="text-link" href="{}">{}</a>', page, row.tenant_id)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, str]:
        """Take the tenant from the query string of "Add one"."""
        return {"tenant": request.GET["tenant"]} if "tenant" in request.GET else {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or save the form. If the model refuses a valid form, the row has just changed."""
        try:
            response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as error:
            messages.error(request, "Not saved. " + " ".join(error.messages))
            return redirect(request.get_full_path())
        return response

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        context = {**context, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {**(extra_context or {}), "tenant_id": request.GET.get("tenant__id__exact")}
        return super().changelist_view(request, context)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        row = self.get_object_or_404(request, object_id)
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        changes, has_more = changes_of(row)
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {self.opts.verbose_name} {row}",
            "changes": changes,
            "has_more": has_more,
            "opts": self.opts,
            "original": row,
        }
        return TemplateResponse(request, "tenants/admin/history.html", context)
