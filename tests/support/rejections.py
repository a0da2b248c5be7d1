"""Reasons to reject a sign-on, each with the expected response."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from ags.sessions.models import Account, AccountStatus, Device, DeviceStatus, SessionToken
from tenants.models import Key, KeyState, Service, Tenant
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import add_key
from tests.support.responses import (
    ACCOUNT_CANCELLED,
    ACCOUNT_SUSPENDED,
    DEVICE_DISABLED,
    DEVICE_LIMIT_REACHED,
    DEVICE_UNKNOWN,
    NOT_AUTHENTICATED,
    SERVICE_NOT_AVAILABLE,
    full_response,
)
from tests.support.sign_ons import get_devices, update_row

# Changes of the configuration apply although the snapshot is stale


def revoke_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.state = KeyState.REVOKED
    key.save()


def stage_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.state = KeyState.STAGED
    key.save()


def end_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.not_after = datetime.now(UTC) - timedelta(seconds=1)
    key.save()


def postpone_key() -> None:
    key = Key.objects.for_tenant("nagra").get()
    key.not_before = datetime.now(UTC) + timedelta(minutes=1)
    key.save()


def replace_key() -> None:
    """Replace the key with one of the same kid and another secret."""
    SessionToken.unscoped.all().delete()
    Key.objects.for_tenant("nagra").get().delete()
    add_key(HeadEnd("nagra", "nagra-key-1", bytes(range(60, 100))))


def save_disabled_service() -> None:
    service = Service.objects.for_tenant("nagra").get()
    service.enabled = False
    service.save()


def save_disabled_tenant() -> None:
    tenant = Tenant.objects.get(pk="nagra")
    tenant.enabled = False
    tenant.save()


CONFIGURATION_CHANGES: list[tuple[Callable[[], None], dict[str, Any]]] = [
    (revoke_key, NOT_AUTHENTICATED),
    (stage_key, NOT_AUTHENTICATED),
    (end_key, NOT_AUTHENTICATED),
    (postpone_key, NOT_AUTHENTICATED),
    (replace_key, NOT_AUTHENTICATED),
    (save_disabled_service, SERVICE_NOT_AVAILABLE),
    (save_disabled_tenant, SERVICE_NOT_AVAILABLE),
]


# Invalid requests


AMBIGUOUS_DEVICES: dict[str, dict[str, Any]] = {
    "neither": {},
    "both": {"deviceInformation": {}, "clientId": "x"},
    "both null": {"deviceInformation": None, "clientId": None},
    "information that is an array": {"deviceInformation": []},
    "information that is a string": {"deviceInformation": "{}"},
    "information that is a number": {"deviceInformation": 1},
    "information that is true": {"deviceInformation": True},
    "an array beside a good client ID": {"deviceInformation": [], "clientId": "x"},
    "a client ID that is a number": {"clientId": 1},
    "a client ID that is an object": {"clientId": {}},
    "a client ID that is empty": {"clientId": ""},
    "a client ID of 129 characters": {"clientId": "x" * 129},
    "a number beside good information": {"deviceInformation": {}, "clientId": 0},
    "another spelling": {"DeviceInformation": {}, "client_id": "x"},
}


# Rejections that do not use up the proof


def reject_and_accept(
    sign_on: Callable[[], Any],
    undo: Callable[[], None],
    expected: dict[str, Any],
    is_unused: Callable[[], bool],
) -> str:
    """Present the proof twice, with the `expected` response, and again after `undo`; return the client ID."""
    before = [(device.sign_on, device.signed_on_at) for device in get_devices()]
    for _ in range(2):
        assert full_response(sign_on()) == expected
    assert [(device.sign_on, device.signed_on_at) for device in get_devices()] == before
    assert is_unused()
    undo()
    snapshot.invalidate("nagra")
    answer = sign_on()
    assert answer.status_code == 201
    client_id: str = answer.json()["client_id"]
    return client_id


def suspend_account(app: ClientApp) -> Callable[[], None]:
    app.sign_on()
    update_row(Account, status=AccountStatus.SUSPENDED)
    return lambda: update_row(Account, status=AccountStatus.ACTIVE)


def cancel_account(app: ClientApp) -> Callable[[], None]:
    app.sign_on()
    update_row(Account, status=AccountStatus.CANCELLED)
    return lambda: update_row(Account, status=AccountStatus.ACTIVE)


def add_suspended_account(app: ClientApp) -> Callable[[], None]:
    """Staff have added the account before its first sign-on."""
    account = Account(tenant_id="nagra", account_id="account-1", status=AccountStatus.SUSPENDED)
    account.save()
    return lambda: update_row(Account, status=AccountStatus.ACTIVE)


def reach_device_limit(app: ClientApp) -> Callable[[], None]:
    app.sign_on()
    update_row(Tenant, device_limit=1)
    return lambda: update_row(Tenant, device_limit=None)


def disable_service(app: ClientApp) -> Callable[[], None]:
    update_row(Service, enabled=False)
    return lambda: update_row(Service, enabled=True)


def disable_tenant(app: ClientApp) -> Callable[[], None]:
    update_row(Tenant, enabled=False)
    return lambda: update_row(Tenant, enabled=True)


def delete_device(app: ClientApp) -> Callable[[], None]:
    app.sign_on()
    update_row(Device, status=DeviceStatus.DELETED)
    return lambda: update_row(Device, status=DeviceStatus.ENABLED)


def disable_device(app: ClientApp) -> Callable[[], None]:
    app.sign_on()
    update_row(Device, status=DeviceStatus.DISABLED)
    return lambda: update_row(Device, status=DeviceStatus.ENABLED)


REJECTIONS: dict[str, tuple[Callable[[ClientApp], Callable[[], None]], dict[str, Any], bool]] = {
    "cancelled": (cancel_account, ACCOUNT_CANCELLED, False),
    "cancelled, known device": (cancel_account, ACCOUNT_CANCELLED, True),
    "suspended": (suspend_account, ACCOUNT_SUSPENDED, False),
    "suspended, known device": (suspend_account, ACCOUNT_SUSPENDED, True),
    "suspended before its first sign-on": (add_suspended_account, ACCOUNT_SUSPENDED, False),
    "the service is disabled": (disable_service, SERVICE_NOT_AVAILABLE, False),
    "the tenant is disabled": (disable_tenant, SERVICE_NOT_AVAILABLE, False),
    "as many devices as allowed": (reach_device_limit, DEVICE_LIMIT_REACHED, False),
    "the device is deleted": (delete_device, DEVICE_UNKNOWN, True),
    "the device is disabled": (disable_device, DEVICE_DISABLED, True),
}
