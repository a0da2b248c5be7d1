"""Admin pages of session tokens."""

from typing import ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from ags.sessions.admin.annotations import with_session_token_state
from ags.sessions.admin.forms import SessionTokenSearchForm
from ags.sessions.admin.search_only import EMPTY_VALUE, SearchOnlyAdmin, change_link, format_code, format_time
from ags.sessions.models import SessionToken
from ags.sessions.services.account_status import revoke_session_token
from tenants.admin.transitions import Transition


@admin.register(SessionToken)
class SessionTokenAdmin(SearchOnlyAdmin):
    search_form = SessionTokenSearchForm
    title = "Look up session tokens"
    columns: ClassVar = {
        "account ID": lambda token: change_link(token, token.account_id),
        "state": lambda token: format_code(token.state),
        "issued (UTC)": lambda token: format_time(token.created_at),
        "expires (UTC)": lambda token: format_time(token.expires_at),
        "redeemed (UTC)": lambda token: format_time(token.redeemed_at),
        "revoked (UTC)": lambda token: format_time(token.revoked_at),
        "service": lambda token: token.service.name,
        "key": lambda token: token.key.kid if token.key else EMPTY_VALUE,
        "correlation ID": lambda token: token.correlation_id,
    }
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
    transitions = (
        Transition(
            name="revoke",
            label="Revoke",
            permission="revoke",
            method="revoke_session_token",
            title="Revoke this session token?",
            consequences=(
                "Service {row.service} issued it to account {row.account_id} of {row.tenant_id}. Its state "
                "is: {row.state}.",
                "From now on it cannot be redeemed. This cannot be undone.",
                "Existing sign-ons are not ended. To end one, open the page of its device.",
                "The account can get another session token immediately.",
            ),
            done="The session token is revoked.",
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[SessionToken]:
        return with_session_token_state(super().get_queryset(request).select_related("service", "key"))

    def is_offered(self, transition: Transition, row: SessionToken) -> bool:
        return row.revoked_at is None and row.redeemed_at is None

    def revoke_session_token(self, request: HttpRequest, token: SessionToken, _: Transition) -> None:
        revoke_session_token(token)
