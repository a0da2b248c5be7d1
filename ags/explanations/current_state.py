"""What is configured now, for refusals of which the stored facts leave several causes possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ags.explanations.reasons import Side
from ags.sessions.models import Device, DeviceStatus, Event
from tenants.models import Key, Service


def describe_current_state(event: Event) -> list[str]:
    """Return sentences about the service, the key or the device that the request named."""
    describe = _DESCRIPTIONS.get(event.reason)
    return list(describe(event)) if describe and event.tenant_id else []


def find_side(event: Event, side: Side | None) -> Side | None:
    """Return the side at fault: `side`, unless staff have disabled the service."""
    if event.reason == "service_not_available" and _services(event).get(event.service) is False:
        return Side.CONFIGURATION
    return side


def _services(event: Event) -> Mapping[str, bool]:
    """Return if each service of the tenant is enabled, by name."""
    return dict(Service.objects.for_tenant(event.tenant_id or "").values_list("name", "enabled"))


def _describe_service(event: Event) -> Iterator[str]:
    services = _services(event)
    if event.service in services:
        yield f"The service “{event.service}” is {'enabled' if services[event.service] else 'disabled'} now."
        return
    for name in services:
        if name.casefold() == event.service.casefold():
            yield f"The tenant has the service “{name}”: upper and lower case differ."


def _describe_key(event: Event) -> Iterator[str]:
    key = Key.objects.for_tenant(event.tenant_id or "").filter(kid=event.kid).first()
    if key is not None:
        times = {"Not before": key.not_before, "Not after": key.not_after}
        dates = [f"{name} {_format(time)}" for name, time in times.items() if time is not None]
        yield ", ".join([f"The key is {key.state} now", *dates]) + "."


def _find_device(event: Event) -> Device | None:
    devices = Device.objects.for_tenant(event.tenant_id or "").filter(client_id=event.client_id)
    return devices.select_related("account").first()


def _describe_sign_on(event: Event) -> Iterator[str]:
    device = _find_device(event)
    if device is not None and device.ended_at is not None:
        yield f"The sign-on ended at {_format(device.ended_at)} ({device.end_reason})."


def _describe_device(event: Event) -> Iterator[str]:
    device = _find_device(event)
    if device is None:
        yield "The tenant has no device with this clientId now."
    elif device.status == DeviceStatus.DELETED:
        yield "Staff have deleted the device with this clientId."
    elif event.account_id not in ("", device.account.account_id):
        yield "The device with this clientId is of another account."


def _format(time: Any) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


_DESCRIPTIONS: Mapping[str, Callable[[Event], Iterator[str]]] = {
    "service_not_available": _describe_service,
    "key_not_in_force": _describe_key,
    "device_unknown": _describe_device,
    "sign_on_ended": _describe_sign_on,
}
"""By reason."""
