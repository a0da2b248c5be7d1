"""Admin pages of subscriber accounts."""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from unfold.decorators import display
from unfold.enums import ActionVariant

from ags.sessions.admin.forms import AccountCreationForm, AccountSearchForm
from ags.sessions.admin.search_only import SearchOnlyAdmin, change_link, format_time
from ags.sessions.models import Account, AccountStatus, Device
from ags.sessions.services.account_status import cancel_account, revoke_all
from ags.sessions.services.staff_events import record_staff_action
from tenants.admin.forms import restricted_to
from tenants.admin.revoke_issued import RevokeIssuedAdmin, revoke_issued_transition
from tenants.admin.transitions import OFFLINE, Transition
from tenants.models import tenants_for_user

NAME = "account {row} of {row.tenant_id}"


@admin.register(Account)
class AccountAdmin(SearchOnlyAdmin, RevokeIssuedAdmin):
    search_form = AccountSearchForm
    title = "Look up an account"
    columns: ClassVar = {
        "account ID": lambda account: change_link(account, account.account_id),
        "status": lambda account: account.status,
        "created (UTC)": lambda account: format_time(account.created_at),
        "revoked up to (UTC)": lambda account: format_time(account.revoked_before),
    }
    keeps_history = True
    readonly_fields = ("state_label", "audit_trail_link")
    transitions = (
        Transition(
            name="suspend",
            label="Suspend",
            permission="revoke",
            sources={AccountStatus.ACTIVE},
            target=AccountStatus.SUSPENDED,
            title=f"Suspend {NAME}?",
            consequences=(
                "From now on it cannot sign on, and its devices cannot refresh.",
                OFFLINE,
                "When it is reactivated, its sign-ons are valid again.",
            ),
            done="The account is suspended.",
        ),
        Transition(
            name="reactivate",
            label="Reactivate",
            permission="revoke",
            variant=ActionVariant.SUCCESS,
            sources={AccountStatus.SUSPENDED},
            target=AccountStatus.ACTIVE,
            title=f"Reactivate {NAME}?",
            consequences=("It can sign on again, and its sign-ons that have not ended are valid again.",),
            done="The account is active.",
        ),
        Transition(
            name="cancel",
            label="Cancel account",
            permission="terminate",
            sources={AccountStatus.ACTIVE, AccountStatus.SUSPENDED},
            method="cancel_account",
            title=f"Cancel {NAME}?",
            consequences=(
                "It can never sign on again, and all of its sign-ons are invalid from now on.",
                OFFLINE,
                "This cannot be undone: the account ID stays cancelled. To block it temporarily, suspend it.",
            ),
            done="The account is cancelled.",
        ),
        revoke_issued_transition(
            NAME,
            "The account itself and its devices are not changed: each device can sign on again.",
            name="revoke_all",
            method="perform_revoke_all",
            label="Revoke all",
            permission="revoke",
            title=f"Revoke everything issued to {NAME}?",
            done="Everything issued to the account is revoked.",
        ),
    )
    change_form_outer_after_template = "ags_sessions/admin/devices.html"

    @display(description="Status", label={"active": "success", "suspended": "warning", "cancelled": "danger"})
    def state_label(self, account: Account) -> str:
        return account.status

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Staff can add an account before its first sign-on."""
        return bool(request.user.has_perm("ags_sessions.add_account"))

    def get_form(
        self, request: HttpRequest, obj: Account | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        if obj is None:
            kwargs["form"] = restricted_to(AccountCreationForm, tenants_for_user(request.user))
        kwargs["labels"] = {"revoked_before": "Everything is revoked up to"}
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        key_fields = ("tenant", "account_id")
        if obj is None:
            return key_fields
        return (*key_fields, "state_label", "created_at", "revoked_before", "audit_trail_link")

    def response_add(
        self, request: HttpRequest, obj: Account, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Messages are stored in a cookie, so that this one omits the account ID."""
        messages.success(request, "The account was added.")
        return redirect("admin:ags_sessions_account_change", obj.pk)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        account = context.get("original")
        device_admin: Any = self.admin_site.get_model_admin(Device)
        if account is not None and device_admin.has_view_permission(request):
            devices = device_admin.get_queryset(request).filter(tenant=account.tenant_id, account=account)
            context |= device_admin.table_context(devices)
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        """Save a new account, and its event in the same transaction."""
        super().save_model(request, obj, form, change)
        record_staff_action(obj, "add", None, {"status": obj.status})

    def perform_revoke_all(self, request: HttpRequest, account: Account, _: Transition) -> None:
        revoke_all(account)

    def cancel_account(self, request: HttpRequest, account: Account, _: Transition) -> None:
        cancel_account(account)
