"""What the pages of rows about subscribers share: found by what is known of them, never browsed or edited."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.crypto import get_random_string
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters

from ags.sessions.admin.forms import SearchForm
from tenants.admin.base import BoundedAdmin
from tenants.models import tenants_for_user

SHOWN = 100
"""Rows that a look-up shows at most, the newest."""

RESULT = "result"
"""The parameter of an address that names a look-up of this session."""

SEARCHES = "look_ups"
"""Where the session keeps what was looked for: by name, the model and the terms. The newest come last."""

MAX_SEARCHES = 20
"""Look-ups that a session keeps, so that the browser can go back to them."""

NOTHING = "—"

STATES = {"live": "success", "expired": "info", "redeemed": "info"}
"""How what has been issued stands, coloured; whatever else is said, it is dead."""


class SearchOnlyAdmin(BoundedAdmin):
    """Base of the pages. What is known travels in the body of a POST: an account ID is in no address.

    The session keeps it, so that the page with what was found is a GET, and the browser can go back to it.
    """

    search_form: ClassVar[type[SearchForm]]
    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    newest_first: ClassVar[tuple[str, ...]] = ("-created_at", "-pk")
    # Whether staff change such a row, so that the log tells who did.
    keeps_history: ClassVar[bool] = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """The gate makes them."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """There is nothing to fill in: each change is a question of its own."""
        return False

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether this person may ask those questions."""
        return bool(request.user.has_perm(f"ags_sessions.change_{self.opts.model_name}"))

    def has_end_for_good_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whether this person may do what has no way back."""
        return bool(request.user.has_perm(f"ags_sessions.delete_{self.opts.model_name}"))

    def row_cells(self, row: Any) -> list[Any]:
        """Return what the table says of a row, under `columns`."""
        raise TypeError(f"{type(self).__name__} declares no row_cells()")

    def search_data(self, request: HttpRequest) -> Any:
        """Return what is looked for before the form is sent: nothing."""
        return None

    @method_decorator(sensitive_post_parameters("token"))
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Take the form, and lead to what it found, at an address that the browser can go back to."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        tenants = tenants_for_user(request.user)
        terms = None  # the form of a page with a result is sent to the address of that result
        if request.method == "POST":
            form = self.search_form(tenants, request.POST)
            if form.is_valid():
                name = _keep(request, self.opts.model_name, form.terms())
                return redirect(f"{request.path}?{urlencode({RESULT: name})}")
        elif RESULT in request.GET:
            terms = _terms_of(request, self.opts.model_name)
            form = self.search_form(tenants, initial=terms)
            if terms is None:
                messages.warning(request, "This look-up is no longer kept. Enter it again.")
        else:
            form = self.search_form(tenants, self.search_data(request))
            terms = form.terms() if form.is_valid() else None
        context = {
            **self.admin_site.each_context(request),
            "title": self.title,
            "form": form,
            "media": self.media + form.media,
            "opts": self.opts,
            "has_add_permission": self.has_add_permission(request),
        }
        if terms is not None:  # of whichever tenant, get_queryset() finds only what this person may see
            context |= self.table(self.get_queryset(request).filter(**self.search_form.condition(terms)))
        return TemplateResponse(request, "ags_sessions/admin/search.html", context)

    def table(self, rows: QuerySet[Any]) -> dict[str, Any]:
        """Return the newest of these rows as a table, and whether there are more."""
        found = list(rows.order_by(*self.newest_first)[: SHOWN + 1])
        more = f"There are more than {SHOWN}: these are the newest {SHOWN}." if len(found) > SHOWN else ""
        return {
            "table": {"headers": self.columns, "rows": [self.row_cells(row) for row in found[:SHOWN]]},
            "more": more,
        }

    def link(self, row: Any, text: str) -> SafeString:
        """Return the way to the page of a row."""
        page = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[row.pk])
        return format_html('<a class="text-link" href="{}">{}</a>', page, text)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Show the row; a link to a history only where there is one."""
        context = {
            **context,
            "show_history": self.keeps_history,
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().render_change_form(request, context, *args, **kwargs)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show who changed it and when, if that is anything but what the row itself says."""
        if not self.keeps_history:
            raise Http404
        response: HttpResponse = super().history_view(request, object_id, extra_context)
        return response


def _keep(request: HttpRequest, model_name: str | None, terms: Mapping[str, Any]) -> str:
    """Keep what was looked for in the session, which ends with it, and return its name there."""
    look_ups = dict(list(request.session.get(SEARCHES, {}).items())[1 - MAX_SEARCHES :])
    name = get_random_string(12)
    request.session[SEARCHES] = look_ups | {name: [model_name, terms]}
    return name


def _terms_of(request: HttpRequest, model_name: str | None) -> dict[str, Any] | None:
    """Return what was looked for, if this session still knows it, and it was of this kind."""
    kind, terms = request.session.get(SEARCHES, {}).get(request.GET.get(RESULT), (None, None))
    return terms if kind == model_name else None


def moment(when: Any) -> str:
    """Return a moment as the tables say it."""
    return NOTHING if when is None else f"{when:%Y-%m-%d %H:%M:%S}"


def in_words(reason: str) -> str:
    """Return a machine word as a person writes it."""
    return reason.replace("sign_on", "sign-on").replace("_", " ")
