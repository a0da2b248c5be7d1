"""The pages of accounts: looked up, added, suspended, cancelled, and everything revoked that one has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from ags.sessions import status
from ags.sessions.admin.device import DeviceAdmin
from ags.sessions.admin.look_up import LookUpAdmin, moment
from ags.sessions.forms import AccountLookUp, NewAccount
from ags.sessions.models import Account, AccountStatus, Device
from ags.sessions.revoke import cut_off
from tenants.admin.cut_off import OFFLINE, cutting_off
from tenants.admin.pages import Question
from tenants.forms import form_for
from tenants.models import tenants_of

STATUSES = {"active": "success", "suspended": "warning", "cancelled": "danger"}
"""How each is coloured."""

OFFERED = {
    AccountStatus.ACTIVE: {"suspend", "cancel", "revoke_all"},
    AccountStatus.SUSPENDED: {"reactivate", "cancel", "revoke_all"},
    AccountStatus.CANCELLED: {"revoke_all"},
}
"""What can be done to an account of each status."""


@admin.register(Account)
class AccountAdmin(LookUpAdmin):
    """A subscriber, whether he may sign on, and his devices."""

    look_up = AccountLookUp
    title = "Look up an account"
    columns = ("account ID", "status", "made (UTC)", "revoked up to (UTC)")
    keeps_history = True
    readonly_fields = ("stands",)
    actions_detail = ("suspend", "reactivate", "cancel", "revoke_all")
    change_form_outer_after_template = "ags_sessions/admin/devices.html"

    def cells(self, row: Account) -> list[Any]:
        """Return what the table says of an account."""
        return [
            self.link(row, row.account_id),
            row.status,
            moment(row.created_at),
            moment(row.revoked_before),
        ]

    @display(description="Status", label=STATUSES)
    def stands(self, account: Account) -> str:
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
            kwargs["form"] = form_for(NewAccount, tenants_of(request.user))
        kwargs["labels"] = {"revoked_before": "Everything is revoked up to"}
        return super().get_form(request, obj, change, **kwargs)

    def get_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        """A new one is known by two things; the rest is looked at."""
        known = ("tenant", "account_id")
        return known if obj is None else (*known, "stands", "created_at", "revoked_before")

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
        offered = OFFERED[AccountStatus(self.found(request, object_id).status)]
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
        account: Account = self.found(request, object_id)
        question = Question(
            title=f"Suspend account {account} of {account.tenant_id}?",
            consequences=[
                "It cannot sign on, and none of its devices can refresh, from this moment on.",
                OFFLINE,
                "Once it is reactivated, its devices go on as they were.",
            ],
            button="Suspend",
            done="The account is suspended.",
        )
        return self.ask(
            request,
            account,
            question,
            lambda: status.change(account, [AccountStatus.ACTIVE], AccountStatus.SUSPENDED),
        )

    @action(
        description="Reactivate",
        url_path="reactivate",
        permissions=["revoke"],
        variant=ActionVariant.SUCCESS,
    )
    def reactivate(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it in again."""
        account: Account = self.found(request, object_id)
        question = Question(
            title=f"Reactivate account {account} of {account.tenant_id}?",
            consequences=["It can sign on again, and its devices go on as they were."],
            button="Reactivate",
            done="The account is active.",
            dangerous=False,
        )
        return self.ask(
            request,
            account,
            question,
            lambda: status.change(account, [AccountStatus.SUSPENDED], AccountStatus.ACTIVE),
        )

    @action(
        description="Cancel account",
        url_path="cancel",
        permissions=["end_for_good"],
        variant=ActionVariant.DANGER,
    )
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for good."""
        account: Account = self.found(request, object_id)
        question = Question(
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
        return self.ask(request, account, question, lambda: status.cancel(account))

    @action(
        description="Revoke all",
        url_path="revoke-all",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def revoke_all(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """End everything that it has, and let it sign on anew."""
        account: Account = self.found(request, object_id)
        question = cutting_off(
            f"account {account} of {account.tenant_id}",
            "The account itself stays as it is, and so do its devices: each can sign on again.",
        )
        return self.ask(
            request,
            account,
            replace(question, done="Everything that the account had is revoked."),
            lambda: cut_off(account),
        )
