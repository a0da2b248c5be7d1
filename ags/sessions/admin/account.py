"""The pages of accounts: looked up, added, suspended, cancelled, and everything revoked that one has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from tenants.admin.revoke_issued_action import OFFLINE, revoke_issued_confirmation
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from ags.sessions.admin.device import DeviceAdmin
from ags.sessions.admin.forms import AccountSearchForm, NewAccount
from ags.sessions.admin.search_only import SearchOnlyAdmin, moment
from ags.sessions.models import Account, AccountStatus, Device
from ags.sessions.services import account_status
from ags.sessions.services.revoke import revoke_issued
from tenants.admin.base import Confirmation
from tenants.admin.forms import restricted_to
from tenants.models import tenants_for_user

STATUSES = {"active": "success", "suspended": "warning", "cancelled": "danger"}
"""How each is coloured."""

OFFERED = {
    AccountStatus.ACTIVE: {"suspend", "cancel", "revoke_all"},
    AccountStatus.SUSPENDED: {"reactivate", "cancel", "revoke_all"},
    AccountStatus.CANCELLED: {"revoke_all"},
}
"""What can be done to an account of each status."""


@admin.register(Account)
class AccountAdmin(SearchOnlyAdmin):
    """A subscriber, whether he may sign on, and his devices."""

    search_form = AccountSearchForm
    title = "Look up an account"
    columns = ("account ID", "status", "made (UTC)", "revoked up to (UTC)")
    keeps_history = True
    readonly_fields = ("state_label",)
    actions_detail = ("suspend", "reactivate", "cancel", "revoke_all")
    change_form_outer_after_template = "ags_sessions/admin/devices.html"

    def row_cells(self, row: Account) -> list[Any]:
        """Return what the table says of an account."""
        return [
            self.link(row, row.account_id),
            row.status,
            moment(row.created_at),
            moment(row.revoked_before),
        ]

    @display(description="Status", label=STATUSES)
    def state_label(self, account: Account) -> str:
        """The status in one word."""
        return account.status

    # Adding

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Staff may make one before its first sign-on."""
        return bool(request.user.has_perm("ags_sessions.add_account"))

    def get_form(
        self, request: HttpRequest, obj: Account | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form of a new account."""
        if obj is None:
            kwargs["form"] = restricted_to(NewAccount, tenants_for_user(request.user))
        kwargs["labels"] = {"revoked_before": "Everything is revoked up to"}
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        """A new one is known by two things; the rest is looked at."""
        known = ("tenant", "account_id")
        return known if obj is None else (*known, "state_label", "created_at", "revoked_before")

    def response_add(
        self, request: HttpRequest, obj: Account, post_url_continue: str | None = None
    ) -> HttpResponse:
        """Go to its page. The account ID is in no message, for these travel in a cookie."""
        messages.success(request, "The account is added.")
        return redirect(reverse("admin:ags_sessions_account_change", args=[obj.pk]))

    # Its devices

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Show the newest devices below."""
        account = context.get("original")
        if account is not None:
            page: DeviceAdmin = self.admin_site.get_model_admin(Device)
            if page.has_view_permission(request):
                context |= page.table(
                    page.get_queryset(request).filter(tenant=account.tenant_id, account=account)
                )
        return super().render_change_form(request, context, *args, **kwargs)

    # What is done to it

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what does something to an account of this status."""
        offered = OFFERED[AccountStatus(self.get_object_or_404(request, object_id).status)]
        actions: list[Any] = super().get_actions_detail(request, object_id)
        return [one for one in actions if one.path.replace("-", "_") in offered]

    @action(
        description="Suspend",
        url_path="suspend",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for the time being."""
        account: Account = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Suspend account {account} of {account.tenant_id}?",
            consequences=[
                "It cannot sign on, and none of its devices can refresh, from this moment on.",
                OFFLINE,
                "Once it is reactivated, its devices go on as they were.",
            ],
            button="Suspend",
            done="The account is suspended.",
        )
        return self.confirm(
            request,
            account,
            confirmation,
            lambda: account_status.change(account, [AccountStatus.ACTIVE], AccountStatus.SUSPENDED),
        )

    @action(
        description="Reactivate",
        url_path="reactivate",
        permissions=["revoke"],
        variant=ActionVariant.SUCCESS,
    )
    def reactivate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it in again."""
        account: Account = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Reactivate account {account} of {account.tenant_id}?",
            consequences=["It can sign on again, and its devices go on as they were."],
            button="Reactivate",
            done="The account is active.",
            dangerous=False,
        )
        return self.confirm(
            request,
            account,
            confirmation,
            lambda: account_status.change(account, [AccountStatus.SUSPENDED], AccountStatus.ACTIVE),
        )

    @action(
        description="Cancel account",
        url_path="cancel",
        permissions=["end_for_good"],
        variant=ActionVariant.DANGER,
    )
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for good."""
        account: Account = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Cancel account {account} of {account.tenant_id}?",
            consequences=[
                "It can never sign on again, and all of its sign-ons are dead from this moment on.",
                OFFLINE,
                "This cannot be undone: the account ID stays cancelled. To refuse it for the time being, "
                "suspend it.",
            ],
            button="Cancel the account",
            done="The account is cancelled.",
        )
        return self.confirm(request, account, confirmation, lambda: account_status.cancel(account))

    @action(
        description="Revoke all",
        url_path="revoke-all",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def revoke_all(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End everything that it has, and let it sign on anew."""
        account: Account = self.get_object_or_404(request, object_id)
        confirmation = revoke_issued_confirmation(
            f"account {account} of {account.tenant_id}",
            "The account itself stays as it is, and so do its devices: each can sign on again.",
        )
        return self.confirm(
            request,
            account,
            replace(confirmation, done="Everything that the account had is revoked."),
            lambda: revoke_issued(account),
        )
