"""What is configured now, for refusals of which the stored facts leave several causes possible."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from ags.explanations.explanation import Explanation
from ags.explanations.reasons import Side
from ags.sessions.models import Device, DeviceStatus, Event
from tenants.models import Key, Service
from tenants.times import format_utc


def add_current_state(explanation: Explanation, event: Event) -> Explanation:
    """Add sentences about the service, the key or the device that the request named."""
    if not event.tenant_id:
        return explanation
    if event.reason == "service_not_available":
        return _add_service(explanation, event)
    describe = _DESCRIPTIONS.get(event.reason)
    return replace(explanation, since=tuple(describe(event))) if describe else explanation


def describe_end(device: Device) -> str | None:
    """Return a sentence about the end of the sign-on; None if it has not ended."""
    if device.ended_at is None:
        return None
    return f"The sign-on ended at {format_utc(device.ended_at)} ({device.end_reason})."


def _add_service(explanation: Explanation, event: Event) -> Explanation:
    """If staff have disabled the service, the configuration is at fault."""
    services = dict(Service.objects.for_tenant(event.tenant_id or "").values_list("name", "enabled"))
    if event.service not in services:
        similar = [name for name in services if name.casefold() == event.service.casefold()]
        since = [f"The tenant has the service “{name}”: upper and lower case differ." for name in similar]
        return replace(explanation, since=tuple(since))
    enabled = services[event.service]
    return replace(
        explanation,
        side=explanation.side if enabled else Side.CONFIGURATION,
        since=(f"The service “{event.service}” is {'enabled' if enabled else 'disabled'} now.",),
    )


def _describe_key(event: Event) -> Iterator[str]:
    key = Key.objects.for_tenant(event.tenant_id or "").filter(kid=event.kid).first()
    if key is not None:
        times = {"Not before": key.not_before, "Not after": key.not_after}
        dates = [f"{name} {format_utc(time)}" for name, time in times.items() if time is not None]
        yield ", ".join([f"The key is {key.state} now", *dates]) + "."


def _find_device(event: Event) -> Device | None:
    devices = Device.objects.for_tenant(event.tenant_id or "").filter(client_id=event.client_id)
    return devices.select_related("account").first()


def _describe_sign_on(event: Event) -> Iterator[str]:
    device = _find_device(event)
    if device is not None and (end := describe_end(device)):
        yield end


def _describe_device(event: Event) -> Iterator[str]:
    device = _find_device(event)
    if device is None:
        yield "The tenant has no device with this clientId now."
    elif device.status == DeviceStatus.DELETED:
        yield "Staff have deleted the device with this clientId."
    elif event.account_id not in ("", device.account.account_id):
        yield "The device with this clientId is of another account."


_DESCRIPTIONS: Mapping[str, Callable[[Event], Iterator[str]]] = {
    "key_not_in_force": _describe_key,
    "device_unknown": _describe_device,
    "sign_on_ended": _describe_sign_on,
}
"""By reason."""
