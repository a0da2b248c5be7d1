"""The pages of devices: looked up, disabled, deleted, and their sign-on ended."""

from __future__ import annotations

import json
from typing import Any

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.enums import ActionVariant

from ags.sessions.admin.annotations import with_device_state
from ags.sessions.admin.forms import DeviceSearchForm
from ags.sessions.admin.search_only import NOTHING, STATES, SearchOnlyAdmin, in_words, moment
from ags.sessions.models import Device, DeviceStatus
from ags.sessions.services import account_status
from ags.sessions.services.revoke import end_sign_on
from tenants.admin.base import Confirmation
from tenants.admin.revoke_issued_action import OFFLINE

STATUSES = {"enabled": "success", "disabled": "warning", "deleted": "danger"}
"""How each is coloured."""

OFFERED = {
    DeviceStatus.ENABLED: {"end", "disable", "delete_device"},
    DeviceStatus.DISABLED: {"end", "enable", "delete_device"},
    DeviceStatus.DELETED: set(),
}
"""What can be done to a device of each status; its sign-on ends only once."""

INFORMATION_MAX_LENGTH = 20_000
"""Characters of the device information that are shown."""

INFORMATION_STYLE = "max-height: 30rem; white-space: pre-wrap; overflow-wrap: anywhere"
"""How they are laid out."""


@admin.register(Device)
class DeviceAdmin(SearchOnlyAdmin):
    """A device of an account, what it tells of itself, and the sign-on that it has."""

    search_form = DeviceSearchForm
    title = "Look up devices"
    columns = (
        "client ID",
        "account ID",
        "type",
        "status",
        "sign-on",
        "since (UTC)",
        "until (UTC)",
    )
    keeps_history = True
    fieldsets = (
        (None, {"fields": ("tenant", "owner", "client_id", "status_label", "created_at")}),
        (
            "Sign-on",
            {
                "fields": (
                    "state_label",
                    "signed_on_at",
                    "service",
                    "key",
                    "correlation_id",
                    "refresh_expires_at",
                    "fixed_expires_at",
                    "ended_at",
                    "end_reason_label",
                )
            },
        ),
        ("What it tells of itself", {"fields": ("information_json",)}),
    )
    readonly_fields = ("owner", "status_label", "state_label", "end_reason_label", "information_json")
    actions_detail = ("end", "disable", "enable", "delete_device")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        """Judge each sign-on by the database's clock."""
        return with_device_state(super().get_queryset(request).select_related("account", "service", "key"))

    def row_cells(self, row: Any) -> list[Any]:
        """Return what the table says of a device."""
        return [
            self.link(row, row.client_id),
            row.account.account_id,
            _type(row.information),
            row.status,
            self.state_label(row),
            moment(row.signed_on_at),
            moment(row.refresh_expires_at),
        ]

    # What is shown

    def get_form(
        self, request: HttpRequest, obj: Device | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        """Return the form, in which there is nothing to fill in, with words of its own."""
        kwargs["labels"] = {
            "signed_on_at": "Since",
            "refresh_expires_at": "Until, unless it is refreshed",
            "fixed_expires_at": "Until, at the latest",
        }
        return super().get_form(request, obj, change, **kwargs)

    @display(description="Account")
    def owner(self, device: Device) -> SafeString:
        """The account, and the way to it."""
        page = reverse("admin:ags_sessions_account_change", args=[device.account_id])
        return format_html('<a class="text-link" href="{}">{}</a>', page, device.account)

    @display(description="Status", label=STATUSES)
    def status_label(self, device: Device) -> str:
        """The status in one word."""
        return device.status

    @display(description="State", label=STATES)
    def state_label(self, device: Any) -> str:
        """Whether its tokens are good."""
        return in_words(device.state)

    @display(description="Why it ended")
    def end_reason_label(self, device: Device) -> str:
        """The reason, as a person says it."""
        return in_words(device.end_reason)

    @display(description="Device information")
    def information_json(self, device: Device) -> SafeString:
        """What the device sent, as JSON."""
        text = json.dumps(device.information, indent=2, ensure_ascii=False)
        if len(text) > INFORMATION_MAX_LENGTH:
            text = (
                f"{text[:INFORMATION_MAX_LENGTH]}\n… and {len(text) - INFORMATION_MAX_LENGTH} more characters"
            )
        return format_html('<pre class="overflow-auto" style="{}">{}</pre>', INFORMATION_STYLE, text)

    # What is done to it

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what does something to a device of this status."""
        device: Device = self.get_object_or_404(request, object_id)
        offered = OFFERED[DeviceStatus(device.status)] - ({"end"} if device.ended_at else set())
        actions: list[Any] = super().get_actions_detail(request, object_id)
        prefix = f"{self.opts.app_label}_{self.opts.model_name}_"
        return [one for one in actions if one.action_name.removeprefix(prefix) in offered]

    @action(
        description="End sign-on",
        url_path="end",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Sign it out."""
        device: Device = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"End the sign-on of device {device}?",
            consequences=[
                f"Account {device.account} of {device.tenant_id} is signed out on it from this moment on. "
                "This cannot be undone.",
                OFFLINE,
                "The device can sign on again at once, with a new session token.",
            ],
            button="End sign-on",
            done=f"The sign-on of device {device} has ended.",
        )
        return self.confirm(request, device, confirmation, lambda: _end(device))

    @action(
        description="Disable",
        url_path="disable",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for the time being."""
        device: Device = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Disable device {device}?",
            consequences=[
                f"Account {device.account} of {device.tenant_id} cannot sign on or refresh with it from this "
                "moment on.",
                OFFLINE,
                "It leaves a place for another device. Once it is enabled, it goes on as it was.",
            ],
            button="Disable",
            done=f"Device {device} is disabled.",
        )
        return self.confirm(
            request,
            device,
            confirmation,
            lambda: account_status.change(device, [DeviceStatus.ENABLED], DeviceStatus.DISABLED),
        )

    @action(
        description="Enable",
        url_path="enable",
        permissions=["revoke"],
        variant=ActionVariant.SUCCESS,
    )
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it in again."""
        device: Device = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Enable device {device}?",
            consequences=[
                "It can sign on and refresh again. A sign-on that has not ended goes on as it was.",
                "It takes a place among the devices that the account may have.",
            ],
            button="Enable",
            done=f"Device {device} is enabled.",
            dangerous=False,
        )
        return self.confirm(request, device, confirmation, lambda: account_status.enable(device))

    @action(
        description="Delete",
        url_path="delete-device",  # "delete" is the admin's own, which removes the row
        permissions=["end_for_good"],
        variant=ActionVariant.DANGER,
    )
    def delete_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for good."""
        device: Device = self.get_object_or_404(request, object_id)
        confirmation = Confirmation(
            title=f"Delete device {device}?",
            consequences=[
                f"Account {device.account} of {device.tenant_id} is signed out on it from this moment on. "
                "Its client ID is never accepted again.",
                OFFLINE,
                "It leaves a place for another device. The app can sign on afresh, as a new device.",
                "This cannot be undone. The row stays, so that what was granted stays explicable.",
            ],
            button="Delete",
            done=f"Device {device} is deleted.",
        )
        return self.confirm(
            request,
            device,
            confirmation,
            lambda: account_status.change(
                device, [DeviceStatus.ENABLED, DeviceStatus.DISABLED], DeviceStatus.DELETED
            ),
        )


def _end(device: Device) -> None:
    if not async_to_sync(end_sign_on)(device.tenant_id, device.sign_on, "ended_by_staff"):
        raise ValidationError(account_status.CHANGED)


def _type(information: Any) -> str:
    told = information.get("deviceType") if isinstance(information, dict) else None
    return told[:40] if isinstance(told, str) and told else NOTHING
