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

from ags.sessions import status
from ags.sessions.admin.judged import judged_devices
from ags.sessions.admin.look_up import NOTHING, STATES, LookUpAdmin, in_words, moment
from ags.sessions.forms import DeviceLookUp
from ags.sessions.models import Device, DeviceStatus
from ags.sessions.revoke import end_sign_on
from tenants.admin.cut_off import OFFLINE
from tenants.admin.pages import Question

STATUSES = {"enabled": "success", "disabled": "warning", "deleted": "danger"}
"""How each is coloured."""

OFFERED = {
    DeviceStatus.ENABLED: {"end", "disable", "delete_device"},
    DeviceStatus.DISABLED: {"end", "enable", "delete_device"},
    DeviceStatus.DELETED: set(),
}
"""What can be done to a device of each status; its sign-on ends only once."""

TOLD = 20_000
"""Characters of the device information that are shown."""

TEXT = "max-height: 30rem; white-space: pre-wrap; overflow-wrap: anywhere"
"""How they are laid out."""


@admin.register(Device)
class DeviceAdmin(LookUpAdmin):
    """A device of an account, what it tells of itself, and the sign-on that it has."""

    look_up = DeviceLookUp
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
        (None, {"fields": ("tenant", "owner", "client_id", "has", "created_at")}),
        (
            "Sign-on",
            {
                "fields": (
                    "stands",
                    "signed_on_at",
                    "service",
                    "key",
                    "correlation_id",
                    "refresh_expires_at",
                    "fixed_expires_at",
                    "ended_at",
                    "why",
                )
            },
        ),
        ("What it tells of itself", {"fields": ("told",)}),
    )
    readonly_fields = ("owner", "has", "stands", "why", "told")
    actions_detail = ("end", "disable", "enable", "delete_device")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        """Judge each sign-on by the database's clock."""
        return judged_devices(super().get_queryset(request).select_related("account", "service", "key"))

    def cells(self, row: Any) -> list[Any]:
        """Return what the table says of a device."""
        return [
            self.link(row, row.client_id),
            row.account.account_id,
            _type(row.information),
            row.status,
            self.stands(row),
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
    def has(self, device: Device) -> str:
        """The status in one word."""
        return device.status

    @display(description="State", label=STATES)
    def stands(self, device: Any) -> str:
        """Whether its tokens are good."""
        return in_words(device.state)

    @display(description="Why it ended")
    def why(self, device: Device) -> str:
        """The reason, as a person says it."""
        return in_words(device.end_reason)

    @display(description="Device information")
    def told(self, device: Device) -> SafeString:
        """What the device sent, as JSON."""
        text = json.dumps(device.information, indent=2, ensure_ascii=False)
        if len(text) > TOLD:
            text = f"{text[:TOLD]}\n… and {len(text) - TOLD} more characters"
        return format_html('<pre class="overflow-auto" style="{}">{}</pre>', TEXT, text)

    # What is done to it

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[Any]:
        """Offer what does something to a device of this status."""
        device: Device = self.found(request, object_id)
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
        device: Device = self.found(request, object_id)
        question = Question(
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
        return self.ask(request, device, question, lambda: _end(device))

    @action(
        description="Disable",
        url_path="disable",
        permissions=["revoke"],
        variant=ActionVariant.DANGER,
    )
    def disable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for the time being."""
        device: Device = self.found(request, object_id)
        question = Question(
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
        return self.ask(
            request,
            device,
            question,
            lambda: status.change(device, [DeviceStatus.ENABLED], DeviceStatus.DISABLED),
        )

    @action(
        description="Enable",
        url_path="enable",
        permissions=["revoke"],
        variant=ActionVariant.SUCCESS,
    )
    def enable(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Let it in again."""
        device: Device = self.found(request, object_id)
        question = Question(
            title=f"Enable device {device}?",
            consequences=[
                "It can sign on and refresh again. A sign-on that has not ended goes on as it was.",
                "It takes a place among the devices that the account may have.",
            ],
            button="Enable",
            done=f"Device {device} is enabled.",
            dangerous=False,
        )
        return self.ask(request, device, question, lambda: status.enable(device))

    @action(
        description="Delete",
        url_path="delete-device",  # "delete" is the admin's own, which removes the row
        permissions=["end_for_good"],
        variant=ActionVariant.DANGER,
    )
    def delete_device(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Refuse it for good."""
        device: Device = self.found(request, object_id)
        question = Question(
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
        return self.ask(
            request,
            device,
            question,
            lambda: status.change(
                device, [DeviceStatus.ENABLED, DeviceStatus.DISABLED], DeviceStatus.DELETED
            ),
        )


def _end(device: Device) -> None:
    if not async_to_sync(end_sign_on)(device.tenant_id, device.sign_on, "ended_by_staff"):
        raise ValidationError(status.CHANGED)


def _type(information: Any) -> str:
    told = information.get("deviceType") if isinstance(information, dict) else None
    return told[:40] if isinstance(told, str) and told else NOTHING
