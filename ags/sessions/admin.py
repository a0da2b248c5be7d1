"""The pages of session tokens: looked up, shown without what is secret, revoked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db import OperationalError, connection, transaction
from django.db.models import Case, CharField, QuerySet, Value, When
from django.db.models.functions import Coalesce, Now
from django.dispatch import receiver
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from ags.sessions.forms import LookUp
from ags.sessions.models import SessionToken
from tenants.admin.pages import BoundedAdmin, Question, bounded_count, in_words, what_stops
from tenants.models import Key, tenants_of

COUNTING_LIMIT = 300
"""Milliseconds."""

SHOWN = 100
"""Session tokens that a look-up shows at most, the newest."""


@admin.register(SessionToken)
class SessionTokenAdmin(BoundedAdmin):
    """What was issued to whom, and whether it still lives."""

    list_display = ("account_id",)
    fields = (
        "tenant",
        "account_id",
        "stands",
        "created_at",
        "expires_at",
        "revoked_at",
        "service",
        "key",
        "correlation_id",
    )
    readonly_fields = ("stands",)
    actions_detail = ("revoke",)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Only the gate issues."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """What was issued is not edited."""
        return False

    def has_revoke_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Revoking is the one change there is."""
        return bool(request.user.has_perm("ags_sessions.change_sessiontoken"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[SessionToken]:
        """Judge each row by the database's clock."""
        return judged(super().get_queryset(request))

    @method_decorator(sensitive_post_parameters("token"))
    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show the look-up, and what it found."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        form = LookUp(tenants_of(request.user), request.POST or None)
        context = {
            **self.admin_site.each_context(request),
            "title": "Look up session tokens",
            "form": form,
            "media": self.media + form.media,
            "opts": self.opts,
        }
        if form.is_valid():
            rows = self.get_queryset(request).filter(tenant=form.cleaned_data["tenant"], **form.condition())
            found = list(rows.select_related("service", "key").order_by("-created_at", "-pk")[: SHOWN + 1])
            context["table"] = self._table(found[:SHOWN])
            if len(found) > SHOWN:
                context["more"] = f"There are more than {SHOWN}: these are the newest {SHOWN}."
        return TemplateResponse(request, "ags_sessions/admin/look_up.html", context)

    def _table(self, tokens: list[SessionToken]) -> dict[str, Any]:
        headers = [
            "account ID",
            "state",
            "issued (UTC)",
            "expires (UTC)",
            "revoked (UTC)",
            "service",
            "key",
            "correlation ID",
        ]
        rows = [
            [
                format_html(
                    '<a class="text-link" href="{}">{}</a>',
                    reverse("admin:ags_sessions_sessiontoken_change", args=[token.pk]),
                    token.account_id,
                ),
                token.state,  # type: ignore[attr-defined] # annotated by `judged`
                *(_moment(when) for when in (token.created_at, token.expires_at, token.revoked_at)),
                token.service.name,
                token.key.kid if token.key else "—",
                token.correlation_id,
            ]
            for token in tokens
        ]
        return {"headers": headers, "rows": rows}

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Show the row without a link to a history."""
        return super().render_change_form(request, {**context, "show_history": False}, *args, **kwargs)

    def history_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """There is none: the row itself says when it was issued and revoked."""
        raise Http404

    @display(description="State", label={"live": "success", "expired": "info", "revoked": "danger"})
    def stands(self, token: Any) -> str:
        """Whether it can still be redeemed."""
        return str(token.state)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """What is revoked cannot be revoked."""
        if self.found(request, object_id).revoked_at is not None:
            return []
        actions: list[Any] = super().get_actions_detail(request, object_id)
        return actions

    @action(description="Revoke", url_path="revoke", permissions=["revoke"], variant=ActionVariant.DANGER)
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make it worthless."""
        token = self.found(request, object_id)
        question = Question(
            title="Revoke this session token?",
            consequences=[
                f"It was issued to account {token.account_id} of {token.tenant_id} "
                f"by service {token.service}, and is {token.state}.",
                "It cannot be redeemed from this moment on, and this cannot be undone.",
                "The account can get another one at once.",
            ],
            button="Revoke",
            done="The session token is revoked.",
        )
        return self.ask(request, token, question, lambda: revoke(token))


def judged(rows: QuerySet[SessionToken]) -> QuerySet[SessionToken]:
    """Add to each row its `state`: live, expired or revoked."""
    state = Case(
        When(revoked_at__isnull=False, then=Value("revoked")),
        When(expires_at__lte=Now(), then=Value("expired")),
        default=Value("live"),
        output_field=CharField(),
    )
    return rows.annotate(state=state)


def revoke(token: SessionToken) -> None:
    """Revoke it, by the database's clock; the first moment stays."""
    SessionToken.objects.for_tenant(token.tenant_id).filter(pk=token.pk).update(
        revoked_at=Coalesce("revoked_at", Now())
    )


@receiver(what_stops)
def live_session_tokens(sender: type, row: Any, **kwargs: Any) -> list[str]:
    """Say how many live session tokens a key gave rise to."""
    if not isinstance(row, Key):
        return []
    # `dead_after` is never before `expires_at`, and has an index.
    live = SessionToken.objects.for_tenant(row.tenant_id).filter(
        key=row, revoked_at=None, expires_at__gt=Now(), dead_after__gt=Now()
    )
    return [f"Live session tokens that it gave rise to: {_counted(live)}."]


def _counted(rows: QuerySet[SessionToken]) -> str:
    """Count, but never keep somebody waiting who is about to revoke a key."""
    if connection.vendor != "postgresql":
        return in_words(bounded_count(rows))
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {COUNTING_LIMIT}")
            return in_words(bounded_count(rows))
    except OperationalError:
        return f"too many to count in {COUNTING_LIMIT} ms"


def _moment(when: Any) -> SafeString | str:
    return "—" if when is None else f"{when:%Y-%m-%d %H:%M:%S}"
