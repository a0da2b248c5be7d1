"""Admin pages of session tokens."""

from typing import Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display

from ags.sessions.admin.forms import SessionTokenSearchForm
from ags.sessions.admin.search_only import EMPTY_VALUE, SearchOnlyAdmin, change_link, format_code, format_time
from ags.sessions.annotations import with_session_token_state
from ags.sessions.models import Device, SessionToken
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
    fieldsets = (
        (None, {"fields": ("tenant", "account_id", "state_label", "revoked_at")}),
        (
            "Issue",
            {
                "fields": (
                    "created_at",
                    "expires_at",
                    "service",
                    "key",
                    "kid",
                    "client_address",
                    "correlation_id",
                    "audit_trail_link",
                )
            },
        ),
        (
            "Redemption",
            {
                "fields": (
                    "redeemed_at",
                    "device_link",
                    "redemption_address",
                    "redemption_correlation_id",
                    "redemption_audit_trail_link",
                )
            },
        ),
    )
    readonly_fields = ("state_label", "audit_trail_link", "device_link", "redemption_audit_trail_link")
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

    def get_form(
        self, request: HttpRequest, obj: SessionToken | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["labels"] = {
            "kid": "Key ID",
            "redemption_address": "Client address",
            "redemption_correlation_id": "Correlation ID",
        }
        return super().get_form(request, obj, change, **kwargs)

    @display(description="Audit trail")
    def audit_trail_link(self, token: Any) -> SafeString | str:
        return token.links.of_request(token)

    @display(description="Device")
    def device_link(self, token: Any) -> SafeString | str:
        devices = Device.objects.for_tenant(token.tenant_id)
        device = devices.filter(client_id=token.client_id).first() if token.client_id else None
        return token.links.page(device, token.client_id)

    @display(description="Audit trail")
    def redemption_audit_trail_link(self, token: Any) -> SafeString | str:
        if not token.redemption_correlation_id:
            return EMPTY_VALUE
        return token.links.of_request(token, "redemption")

    def is_offered(self, transition: Transition, row: SessionToken) -> bool:
        return row.revoked_at is None and row.redeemed_at is None

    def revoke_session_token(self, request: HttpRequest, token: SessionToken, _: Transition) -> None:
        revoke_session_token(token)
