"""The pages of session tokens: looked up, shown without what is secret, revoked."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.db.models.functions import Coalesce, Now
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from ags.sessions.admin.annotations import with_session_token_state
from ags.sessions.admin.forms import SessionTokenSearchForm
from ags.sessions.admin.search_only import NOTHING, STATES, SearchOnlyAdmin, in_words, moment
from ags.sessions.models import SessionToken
from tenants.admin.base import Confirmation


@admin.register(SessionToken)
class SessionTokenAdmin(SearchOnlyAdmin):
    """What was issued to whom, and whether it still lives."""

    search_form = SessionTokenSearchForm
    title = "Look up session tokens"
    columns = (
        "account ID",
        "state",
        "issued (UTC)",
        "expires (UTC)",
        "redeemed (UTC)",
        "revoked (UTC)",
        "service",
        "key",
        "correlation ID",
    )
    fields = (
        "tenant",
        "account_id",
        "state_label",
        "created_at",
        "expires_at",
        "redeemed_at",
        "revoked_at",
        "service",
        "key",
        "correlation_id",
    )
    readonly_fields = ("state_label",)
    actions_detail = ("revoke",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[SessionToken]:
        """Judge each row by the database's clock."""
        return with_session_token_state(super().get_queryset(request).select_related("service", "key"))

    def row_cells(self, row: Any) -> list[Any]:
        """Return what the table says of a token."""
        return [
            self.link(row, row.account_id),
            self.state_label(row),
            *(moment(when) for when in (row.created_at, row.expires_at, row.redeemed_at, row.revoked_at)),
            row.service.name,
            row.key.kid if row.key else NOTHING,
            row.correlation_id,
        ]

    @display(description="State", label=STATES)
    def state_label(self, token: Any) -> str:
        """Whether it can still be redeemed."""
        return in_words(token.state)

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """What is revoked or spent cannot be revoked."""
        token: SessionToken = self.get_object_or_404(request, object_id)
        if token.revoked_at is not None or token.redeemed_at is not None:
            return []
        actions: list[Any] = super().get_actions_detail(request, object_id)
        return actions

    @action(
        description="Revoke",
        url_path="revoke",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Make it worthless."""
        token = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title="Revoke this session token?",
            consequences=[
                f"It was issued to account {token.account_id} of {token.tenant_id} "
                f"by service {token.service}, and is {self.state_label(token)}.",
                "It cannot be redeemed from this moment on, and this cannot be undone. A sign-on that it has "
                "given rise to goes on: that is ended on the page of its device.",
                "The account can get another one at once.",
            ],
            button="Revoke",
            done="The session token is revoked.",
        )
        return self.confirm(request, token, confirmation, lambda: _revoke(token))


def _revoke(token: SessionToken) -> None:
    """Revoke it, by the database's clock; the first moment stays."""
    SessionToken.objects.for_tenant(token.tenant_id).filter(pk=token.pk).update(
        revoked_at=Coalesce("revoked_at", Now())
    )
