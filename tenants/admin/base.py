"""What every page of staff shares: bounds that hold with a million rows, questions before an act, history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, NoReturn

from django.contrib import admin, messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied, ValidationError
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.dispatch import Signal
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
from tenants.models import tenants_of
from tenants.whitespace import strip_whitespace

COUNTED = 1000
"""Rows that a page counts at most."""

SEARCH_MAX_LENGTH = 255
"""Characters of what is searched for in a list; no column that is searched holds more."""

collect_revocation_impact = Signal()
"""Sent with `row` before staff revoke it, or (`revokes_issued`) everything that it issued.

Receivers return sentences about what stops. They may live in an app that this one does not import.
"""


class BoundedPaginator(Paginator):  # type: ignore[type-arg] # not generic at run time
    """Counts, and leads, no further than `COUNTED` rows: whoever wants another row searches for it."""

    template_name = "tenants/admin/pagination.html"

    @cached_property
    def count(self) -> int:
        """How many rows there are, or `COUNTED`."""
        return min(self._found, COUNTED)

    @property
    def more(self) -> bool:
        """Whether there are rows that the pages do not lead to."""
        return self._found > COUNTED

    @cached_property
    def _found(self) -> int:
        return bounded_count(self.object_list)  # type: ignore[arg-type] # the admin gives it querysets


class BoundedList(ChangeList):
    """One page of rows. The header leaves the number to the foot, which knows where counting stopped."""

    result_list: Any

    def get_results(self, request: HttpRequest) -> None:
        """Find the page; there is no second, full number to tell."""
        super().get_results(request)
        self.full_result_count = self.result_count
        if not self.multi_page:  # Django then reads whatever has come since it counted
            self.result_list = self.result_list[: self.list_per_page]


def bounded_count(rows: QuerySet[Any]) -> int:
    """Count, but give up at one more than `COUNTED`."""
    return rows.order_by()[: COUNTED + 1].count()


def in_words(count: int) -> str:
    """Return `count` from `bounded_count` as a person says it."""
    return f"more than {COUNTED}" if count > COUNTED else str(count or "none")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What staff are asked before something is done, and told after."""

    title: str
    consequences: list[str]
    button: str
    done: str
    warning: str = ""
    dangerous: bool = field(default=True, kw_only=True)
    revokes_issued: bool = field(default=False, kw_only=True)
    """Whether everything that the row gave rise to ends, and not the row itself."""


@dataclass(frozen=True, slots=True)
class LabelledValue:
    """What a page that is shown once tells beside the secret; `id` is for what is copied."""

    label: str
    value: str
    id: str = ""


class BoundedAdmin(ModelAdmin):
    """Base of all pages over rows that may be many."""

    actions: Any = None
    list_per_page = 50
    list_max_show_all = 0
    paginator: Any = BoundedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # each facet would count the table
    sortable_by: Any = ()  # only the order that an index has
    allowed_lookups: ClassVar[tuple[str, ...]] = ()
    # How rows belong to a tenant; None where they belong to none.
    of_tenants: ClassVar[str | None] = "tenant__in"

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Leave out the rows of tenants that this person is not assigned to."""
        rows: QuerySet[Any] = super().get_queryset(request)
        if self.of_tenants is not None and not request.user.has_perm("tenants.all_tenants"):
            rows = rows.filter(**{self.of_tenants: tenants_of(request.user)})
        return rows

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find nothing by a text that is too long: Django takes quadratic time to find its words."""
        if len(search_term) > SEARCH_MAX_LENGTH:
            return queryset.none(), False
        search_term = strip_whitespace(search_term)
        found: tuple[QuerySet[Any], bool] = super().get_search_results(request, queryset, search_term)
        return found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the class of the list."""
        return BoundedList

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Refuse all other fields in the query string: answers would tell of what is not shown."""
        return lookup in self.allowed_lookups

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Nothing is deleted: what was granted stays explicable. There are switches and revocation."""
        return False

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> NoReturn:
        # A row of somebody else is as if it were not there, on every page of it.
        raise Http404

    def get_object_or_404(self, request: HttpRequest, object_id: str) -> Any:
        """Return that row, if this person may see it. Raises Http404."""
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        return row

    def confirm(
        self,
        request: HttpRequest,
        row: Model,
        confirmation: Confirmation,
        act: Callable[[], str | HttpResponse | None],
    ) -> HttpResponse:
        """Show the question; once it is confirmed, act, and go back to the row.

        What stops is counted when the question is shown: the act itself waits for no count. It returns what
        it has done where nobody could know that before, or a page to be shown instead of the row. It refuses
        by a ValidationError.
        """
        opts = self.model._meta
        page = reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[quote(row.pk)])
        if request.method == "POST":
            try:
                outcome = act()
            except ValidationError as problem:
                messages.error(request, "Not done. " + " ".join(problem.messages))
                return redirect(page)
            done = outcome if isinstance(outcome, str) else confirmation.done
            self.log_change(request, row, done)
            if isinstance(outcome, HttpResponse):
                return outcome
            messages.success(request, done)
            return redirect(page)
        context = {
            **self.admin_site.each_context(request),
            "title": confirmation.title,
            "confirmation": confirmation,
            "stops": revocation_impact(row, confirmation.revokes_issued) if confirmation.dangerous else [],
            "opts": opts,
            "original": row,
            "back": page,
        }
        return TemplateResponse(request, "tenants/admin/confirmation.html", context)

    def show_once(
        self, request: HttpRequest, title: str, values: list[LabelledValue], secret: LabelledValue, page: str
    ) -> HttpResponse:
        """Show a secret, in this answer and never again; `page` is where to go from there."""
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "values": values,
            "secret": secret,
            "opts": self.opts,
            "page": page,
        }
        return TemplateResponse(
            request, "tenants/admin/shown_once.html", context, headers={"Cache-Control": "no-store"}
        )


class ConfigurationAdmin(BoundedAdmin):
    """Base of the pages for tenants and what belongs to their configuration."""

    list_before_template = "tenants/admin/of_tenant.html"

    @display(description="Tenant")
    def owner(self, row: Any) -> SafeString:
        """The tenant, and the way to it."""
        page = reverse("admin:tenants_tenant_change", args=[row.tenant_id])
        return format_html('<a class="text-link" href="{}">{}</a>', page, row.tenant_id)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, str]:
        """Take the tenant from the link that led here."""
        return {"tenant": request.GET["tenant"]} if "tenant" in request.GET else {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Show or store the form. What the model refuses although the form was good has changed meanwhile."""
        try:
            response: HttpResponse = super().changeform_view(request, object_id, form_url, extra_context)
        except ValidationError as problem:
            messages.error(request, "Not saved: it has changed meanwhile. " + " ".join(problem.messages))
            return redirect(request.get_full_path())
        return response

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Show the form without the button that adds another: the first was added on purpose."""
        context = {**context, "show_save_and_add_another": False}
        response: HttpResponse = super().render_change_form(request, context, *args, **kwargs)
        return response

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the list, which says so when it is that of one tenant."""
        context = {**(extra_context or {}), "of_tenant": request.GET.get("tenant__id__exact")}
        response: HttpResponse = super().changelist_view(request, context)
        return response

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show who changed what, when, before and after."""
        row = self.get_object_or_404(request, object_id)
        if not self.has_view_or_change_permission(request, row):
            raise PermissionDenied
        changes, more = changes_of(row)
        context = {
            **self.admin_site.each_context(request),
            "title": f"History of {self.opts.verbose_name} {row}",
            "changes": changes,
            "more": more,
            "opts": self.opts,
            "original": row,
        }
        return TemplateResponse(request, "tenants/admin/history.html", context)


def revocation_impact(row: Model, revokes_issued: bool) -> list[str]:
    """Return what the apps above say stops with this row, or when all that it gave rise to is cut off."""
    answers: list[tuple[Any, Any]] = collect_revocation_impact.send(
        sender=type(row), row=row, revokes_issued=revokes_issued
    )
    return [sentence for _, sentences in answers for sentence in sentences]
