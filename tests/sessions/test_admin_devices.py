"""Admin pages of devices and their sign-ons."""

from typing import Any

import pytest
from django.test import Client

from ags.sessions.models import Account, Device
from tenants.models import Key, Service, Tenant
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person

LIST = "/admin/ags_sessions/device/"
INFORMATION = {
    "deviceType": "<b>Box</b>",
    "device": {"OS": "</pre><script>alert('x')</script>", "\u00fcber": [1, None]},
}


@pytest.fixture
def device(app: ClientApp) -> Device:
    """A device of account-1 of nagra, signed on."""
    assert app.sign_on(deviceInformation=INFORMATION).status_code == 201
    return Device.objects.for_tenant("nagra").get()


def page_of(device: Device, act: str = "change") -> str:
    return f"{LIST}{device.pk}/{act}/"


def text(response: Any) -> str:
    return response.content.decode()


def look_up(client: Client, tenant: str = "nagra", **criteria: str) -> Any:
    return client.post(LIST, {"tenant": tenant, **criteria}, follow=True)


def rows(response: Any) -> list[list[str]]:
    return response.context["table"]["rows"]


def test_a_device_is_found_by_account_id_or_client_id(
    admin_client: Client, nagra: HeadEnd, sunrise: HeadEnd, device: Device
) -> None:
    ClientApp(nagra).sign_on("account-2")
    for criteria in ({"account_id": "account-1"}, {"client_id": device.client_id}):
        ((link, *cells),) = rows(look_up(admin_client, **criteria))
        assert page_of(device) in link
        assert cells[:4] == ["account-1", "<b>Box</b>", "enabled", "live"]
        assert rows(look_up(admin_client, "sunrise", **criteria)) == []
    for criteria in ({"account_id": "account"}, {"client_id": device.client_id[:-1]}):
        assert "No device matches." in text(look_up(admin_client, **criteria))
    for wrong in ({}, {"account_id": "account-1", "client_id": device.client_id}):
        page = look_up(admin_client, **wrong)
        assert "Enter exactly one: account ID or client ID." in text(page)
        assert "table" not in page.context


def test_a_device_page_escapes_the_device_information(admin_client: Client, device: Device) -> None:
    page = text(admin_client.get(page_of(device)))
    for value in ("account-1", device.client_id, "live", "Customer Auth Service", "nagra-key-1"):
        assert value in page
    assert "&lt;/pre&gt;&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;" in page
    assert "&quot;\u00fcber&quot;: [" in page
    assert "<script>alert" not in page
    assert "<b>Box" not in page
    assert "<b>Box" not in text(look_up(admin_client, account_id="account-1"))


def test_long_device_information_is_truncated(admin_client: Client, device: Device) -> None:
    Device.objects.for_tenant("nagra").update(information={"x": [[0]] * 10_000, "end": "the-end"})
    page = text(admin_client.get(page_of(device)))
    assert "more characters" in page
    assert "the-end" not in page
    assert len(page) < 200_000


# Changes that invalidate a sign-on, by the state that the page shows

CHANGES: dict[str, tuple[Any, dict[str, Any]]] = {
    "tenant not available": (Tenant.objects, {"enabled": False}),
    "service not available": (Service.unscoped, {"enabled": False}),
    "account suspended": (Account.unscoped, {"status": "suspended"}),
    "account cancelled": (Account.unscoped, {"status": "cancelled"}),
    "device disabled": (Device.unscoped, {"status": "disabled"}),
    "device deleted": (Device.unscoped, {"status": "deleted"}),
    "sign-on ended": (Device.unscoped, {"ended_at": "2001-01-01T00:00:00Z"}),
    "revoked": (Key.unscoped, {"revoked_before": "2999-01-01T00:00:00Z"}),
    "expired": (Device.unscoped, {"refresh_expires_at": "2001-01-01T00:00:00Z"}),
}


@pytest.mark.parametrize("state", CHANGES)
def test_the_state_of_a_sign_on_is_the_reason_that_ags_returns(
    admin_client: Client, device: Device, state: str
) -> None:
    model, change = CHANGES[state]
    model.update(**change)
    assert rows(look_up(admin_client, account_id="account-1"))[0][4] == state
    assert state in text(admin_client.get(page_of(device)))


def test_a_rotated_key_leaves_its_sign_ons_valid(admin_client: Client, device: Device) -> None:
    Key.unscoped.update(state="revoked")
    assert rows(look_up(admin_client, account_id="account-1"))[0][4] == "live"


def test_a_disabled_device_is_rejected_until_it_is_enabled(
    admin_client: Client, app: ClientApp, device: Device
) -> None:
    confirmation = text(admin_client.get(page_of(device, "disable")))
    assert "cannot sign on or refresh with it" in confirmation
    assert app.refresh().status_code == 200
    html = text(admin_client.post(page_of(device, "disable"), follow=True))
    assert f"Device {device} is disabled." in html
    assert page_of(device, "disable") not in html
    assert app.refresh().json()["code"] == 20004
    assert app.sign_on(clientId=device.client_id).json()["code"] == 20004
    admin_client.post(page_of(device, "enable"))
    assert app.refresh().status_code == 200


def test_a_deleted_device_keeps_its_row_and_its_client_can_sign_on_again(
    admin_client: Client, app: ClientApp, device: Device
) -> None:
    html = text(admin_client.post(page_of(device, "delete-device"), follow=True))
    assert f"Device {device} is deleted." in html
    assert app.refresh().json()["code"] == 20003
    assert app.sign_on(clientId=device.client_id).json()["code"] == 20003
    assert Device.objects.for_tenant("nagra").get().status == "deleted"
    assert page_of(device, "end") not in html, "a deleted device has no sign-on to end"
    for act in ("enable", "disable", "delete-device"):
        assert page_of(device, act) not in html
        assert "It has been changed in the meantime" in text(
            admin_client.post(page_of(device, act), follow=True)
        )
    assert app.sign_on().status_code == 201


def test_a_device_can_sign_on_again_after_its_sign_on_was_ended(
    admin_client: Client, app: ClientApp, device: Device
) -> None:
    confirmation = text(admin_client.get(page_of(device, "end")))
    assert "Account account-1 of nagra is signed out on it" in confirmation
    html = text(admin_client.post(page_of(device, "end"), follow=True))
    assert "has ended" in html
    assert "ended by staff" in html
    assert page_of(device, "end") not in html
    assert app.refresh().status_code == 401
    assert "It has been changed in the meantime" in text(
        admin_client.post(page_of(device, "end"), follow=True)
    )
    assert app.sign_on(clientId=device.client_id).status_code == 201
    assert page_of(device, "end") in text(admin_client.get(page_of(device)))


@pytest.mark.parametrize("limit", [0, 1])
def test_a_device_is_enabled_only_below_the_device_limit(
    admin_client: Client, app: ClientApp, device: Device, limit: int
) -> None:
    admin_client.post(page_of(device, "disable"))
    app.sign_on()
    Tenant.objects.update(device_limit=limit)
    html = text(admin_client.post(page_of(device, "enable"), follow=True))
    assert f"The account has {limit} enabled devices, the limit of its tenant" in html
    assert Device.objects.for_tenant("nagra").get(pk=device.pk).status == "disabled"
    Tenant.objects.update(device_limit=2)
    admin_client.post(page_of(device, "enable"))
    assert Device.objects.for_tenant("nagra").get(pk=device.pk).status == "enabled"


ACTS = ("end", "disable", "enable", "delete-device")
EXPECTED = {
    "operator staff": (302, 302, 302, 302),
    "support": (302, 302, 302, 403),
    "auditor": (403, 403, 403, 403),
}


@pytest.mark.parametrize("group", EXPECTED)
def test_only_operator_staff_can_delete_devices(device: Device, group: str) -> None:
    browser = person(group, "nagra")
    page = text(browser.get(page_of(device)))
    for act, answer in zip(ACTS, EXPECTED[group], strict=True):
        if act != "enable":
            assert (page_of(device, act) in page) == (answer == 302)
        assert browser.post(page_of(device, act)).status_code == answer


def test_devices_cannot_be_added_edited_or_removed(admin_client: Client, device: Device) -> None:
    before = Device.unscoped.values().get()
    assert admin_client.post(LIST + "add/", {}).status_code == 403
    assert admin_client.post(page_of(device), {"client_id": "x", "status": "deleted"}).status_code == 403
    assert admin_client.post(page_of(device, "delete"), {"post": "yes"}).status_code == 403
    assert Device.unscoped.values().get() == before
