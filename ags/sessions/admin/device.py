"""Admin pages of devices and their sign-ons."""

from typing import Any, ClassVar

from asgiref.sync import async_to_sync
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.decorators import display
from unfold.enums import ActionVariant

from ags.sessions.admin.details import format_json
from ags.sessions.admin.forms import DeviceSearchForm
from ags.sessions.admin.search_only import EMPTY_VALUE, SearchOnlyAdmin, change_link, format_code, format_time
from ags.sessions.annotations import with_device_state
from ags.sessions.models import Device, DeviceStatus
from ags.sessions.request_context import RequestContext
from ags.sessions.services.account_status import CONCURRENT_CHANGE, enable_device
from ags.sessions.services.revoke import end_sign_on
from tenants.admin.transitions import OFFLINE, Transition


@admin.register(Device)
class DeviceAdmin(SearchOnlyAdmin):
    search_form = DeviceSearchForm
    title = "Look up devices"
    columns: ClassVar = {
        "client ID": lambda device: change_link(device, device.client_id),
        "account ID": lambda device: device.account.account_id,
        "type": lambda device: _device_type(device.information),
        "status": lambda device: device.status,
        "sign-on": lambda device: format_code(device.state),
        "signed on (UTC)": lambda device: format_time(device.signed_on_at),
        "expires (UTC)": lambda device: format_time(device.refresh_expires_at),
    }
    keeps_history = True
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "tenant",
                    "account_link",
                    "client_id",
                    "status_label",
                    "created_at",
                    "audit_trail_link",
                )
            },
        ),
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
        ("Device information", {"fields": ("information_json",)}),
    )
    readonly_fields = (
        "account_link",
        "status_label",
        "audit_trail_link",
        "state_label",
        "end_reason_label",
        "information_json",
    )
    transitions = (
        Transition(
            name="end",
            label="End sign-on",
            permission="revoke",
            sources={DeviceStatus.ENABLED, DeviceStatus.DISABLED},
            method="end_sign_on",
            title="End the sign-on of device {row}?",
            consequences=(
                "Account {row.account} of {row.tenant_id} is signed out on it immediately. This cannot be "
                "undone.",
                OFFLINE,
                "The device can sign on again at once, with a new session token.",
            ),
            done="The sign-on of device {row} has ended.",
        ),
        Transition(
            name="disable",
            label="Disable",
            permission="revoke",
            sources={DeviceStatus.ENABLED},
            target=DeviceStatus.DISABLED,
            title="Disable device {row}?",
            consequences=(
                "From now on account {row.account} of {row.tenant_id} cannot sign on or refresh with it.",
                OFFLINE,
                "It no longer counts towards the device limit. Once enabled, its sign-on is valid again.",
            ),
            done="Device {row} is disabled.",
        ),
        Transition(
            name="enable",
            label="Enable",
            permission="revoke",
            variant=ActionVariant.SUCCESS,
            sources={DeviceStatus.DISABLED},
            method="enable_device",
            title="Enable device {row}?",
            consequences=(
                "It can sign on and refresh again. A sign-on that has not ended is valid again.",
                "It counts towards the device limit of the account.",
            ),
            done="Device {row} is enabled.",
        ),
        Transition(
            name="delete_device",  # "delete" is the view of the admin that deletes the row
            label="Delete",
            permission="terminate",
            sources={DeviceStatus.ENABLED, DeviceStatus.DISABLED},
            target=DeviceStatus.DELETED,
            title="Delete device {row}?",
            consequences=(
                "Account {row.account} of {row.tenant_id} is signed out on it immediately. Its client ID is "
                "never accepted again.",
                OFFLINE,
                "It no longer counts towards the device limit. The app can sign on again as a new device.",
                "This cannot be undone. The row stays, as a record of what was granted.",
            ),
            done="Device {row} is deleted.",
        ),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Device]:
        return with_device_state(super().get_queryset(request).select_related("account", "service", "key"))

    def get_form(
        self, request: HttpRequest, obj: Device | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        kwargs["labels"] = {
            "signed_on_at": "Signed on at",
            "refresh_expires_at": "Expires, unless refreshed",
            "fixed_expires_at": "Expires at the latest",
        }
        return super().get_form(request, obj, change, **kwargs)

    @display(description="Account")
    def account_link(self, device: Device) -> SafeString:
        return change_link(device.account, str(device.account))

    @display(description="Status", label={"enabled": "success", "disabled": "warning", "deleted": "danger"})
    def status_label(self, device: Device) -> str:
        return device.status

    @display(description="Reason for the end")
    def end_reason_label(self, device: Device) -> str:
        return format_code(device.end_reason)

    @display(description="Device information")
    def information_json(self, device: Device) -> SafeString:
        return format_json(device.information)

    def is_offered(self, transition: Transition, row: Any) -> bool:
        """A sign-on ends only once."""
        return super().is_offered(transition, row) and not (transition.name == "end" and row.ended_at)

    def end_sign_on(self, request: HttpRequest, device: Device, _: Transition) -> None:
        context: RequestContext = request.log_entry  # type: ignore[attr-defined] # set by GatewayMiddleware
        actor = request.user.get_username()
        reason = "ended_by_staff"
        if not async_to_sync(end_sign_on)(device.tenant_id, device.sign_on, reason, context, actor=actor):
            raise ValidationError(CONCURRENT_CHANGE)

    def enable_device(self, request: HttpRequest, device: Device, _: Transition) -> None:
        enable_device(device)


def _device_type(information: Any) -> str:
    device_type = information.get("deviceType") if isinstance(information, dict) else None
    return device_type[:40] if isinstance(device_type, str) and device_type else EMPTY_VALUE
