"""The requests of published client apps, which depend on these names and types."""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ags.sessions.models import Account, Device
from tests.support.clients import SERVICE, TRIAL, HeadEnd
from tests.support.live import wait_until_served
from tests.support.operators import add_trial_service
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.once


class SignOnRequired(Exception):
    """The app must show the sign-on page."""


@dataclass
class PublishedClient:
    """Simulates published apps, without any code of AGS."""

    address: tuple[str, int]
    tenant: str
    service: str = SERVICE
    storage: dict[str, Any] = field(default_factory=dict)
    """The persistent storage of the device."""

    def _post(self, path: str, headers: dict[str, str], body: str | None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def sign_on(self, session_token: str) -> None:
        """Sign on as a known or a new device; store the result."""
        status, body = self._sign_on("/ags/signOnWithSessionToken", "sessionToken", session_token)
        assert status == 201, body
        self._store(body)

    def sign_on_directly(self, user_input: str, account_name: str) -> list[str]:
        """Send the subscriber's input. If there are several accounts, choose `account_name`.

        Return the names of the accounts.
        """
        status, body = self._sign_on("/ags/signOn", self._mandatory_parameter(), user_input)
        shown = []
        if status == 300:
            tokens = {a["accountInformation"]: a["userAccountToken"] for a in body["accounts"]}
            shown = list(tokens)
            # Sends the input again, but no device.
            parameter = {"name": self._mandatory_parameter().lower(), "value": user_input}
            choice = {"parameters": [parameter], "version": "3.1"}
            headers = {**self._headers(), "User-Token": tokens[account_name]}
            status, body = self._check_device(
                *self._post("/ags/subsequentSignOn", headers, json.dumps(choice))
            )
        assert status == 201, body
        self._store(body)
        return shown

    def _mandatory_parameter(self) -> str:
        """Return the name of the mandatory parameter, from discovery."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            connection.request("GET", "/ags/servicediscovery", headers={"nv-tenant-id": self.tenant})
            services = json.loads(connection.getresponse().read())["availableServices"]
        finally:
            connection.close()
        (service,) = [s for s in services if s["authServiceName"] == self.service]
        (endpoint,) = [e for e in service["endpoints"] if e["name"] == "SIGNON"]
        (parameter,) = [p for p in endpoint["parameterProperties"] if p["mandatory"]]
        name: str = parameter["name"]
        return name

    def _headers(self) -> dict[str, str]:
        return {
            "Content-Type": "application/json",
            "Accept-Language": "en-GB",
            "nv-tenant-id": self.tenant,
            "x-auth-service-id": self.service,
        }

    def _sign_on(self, path: str, name: str, value: str) -> tuple[int, Any]:
        body: dict[str, Any] = {"parameters": [{"name": name, "value": value}], "version": "3.1"}
        if "clientId" in self.storage:
            body["clientId"] = self.storage["clientId"]
        else:
            body["deviceInformation"] = {
                "deviceType": "Android",
                "playoutDeviceClass": "Android Mobile",
                "device": {
                    "screen": {"width": 1080, "height": 2400},
                    "OS": {"name": "Android", "version": "14"},
                },
                "securePlayer": {"name": "Connect", "DRMs": ["Widevine"]},
            }
        return self._check_device(*self._post(path, self._headers(), json.dumps(body)))

    def _check_device(self, status: int, body: Any) -> tuple[int, Any]:
        """If the device is deleted or unknown, remove the clientId and raise SignOnRequired."""
        if status == 403 and body["code"] == 20003:
            del self.storage["clientId"]
            raise SignOnRequired
        return status, body

    def refresh(self) -> None:
        """Refresh without a body and Content-Type, and with the legacy header tenantId."""
        headers = {"Authorization": f"Bearer {self.storage['refresh_token']}", "tenantId": self.tenant}
        status, body = self._post("/ias/v3/token/actions/refresh", headers, None)
        status, body = self._check_device(status, body)
        if status == 401:
            raise SignOnRequired
        assert status == 200, body
        self._store(body)

    def sign_out(self) -> int:
        """Send the access token without a scheme."""
        headers = {
            "Authorization": self.storage["access_token"],
            "nv-tenant-id": self.tenant,
            "x-auth-service-id": self.service,
        }
        return self._post("/ags/signOut", headers, None)[0]

    def access_token_expiry(self) -> int:
        """Return the expiry of the access token, decoded without verification."""
        payload = self.storage["access_token"].split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        assert type(end) is int
        assert end < 10**11, "not in seconds"
        return end

    def _store(self, body: dict[str, Any]) -> None:
        for name in ("expires_in", "refresh_expires_in"):
            assert type(body[name]) is int
        assert body["token_type"].lower() == "bearer"
        self.storage |= {
            "clientId": body["client_id"],
            "accountId": body["accountId"],
            "access_token": body["access_token"],
            "refresh_token": body["refresh_token"],
            "refresh_at": body["expires_in"] - 60,
            "forget_at": body["refresh_expires_in"],
        }


def test_sign_on_refresh_sign_out_and_deleted_device(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = wait_until_served(server, nagra)
    client = PublishedClient(("127.0.0.1", server.port), nagra.tenant_id)

    def qr_code() -> str:
        token: str = head_end.present(head_end.token(OpfAccountId="subscriber 7")).json()["sessionToken"]
        return token

    # The first sign-on of the device
    started_at = int(time.time())
    client.sign_on(qr_code())
    assert started_at + 3600 <= client.access_token_expiry() <= int(time.time()) + 3600
    first = dict(client.storage)
    assert first["accountId"] == "subscriber 7"
    assert (first["refresh_at"], first["forget_at"]) == (3540, 172_800)

    # Refreshes
    for _ in range(3):
        before, started_at = dict(client.storage), int(time.time())
        client.refresh()
        assert client.storage["clientId"] == first["clientId"]
        assert client.storage["access_token"] != before["access_token"]
        assert client.storage["refresh_token"] != before["refresh_token"]
        assert started_at + 3600 <= client.access_token_expiry() <= int(time.time()) + 3600

    # Sign-out, and sign-on as the same device
    assert client.sign_out() == 200
    with pytest.raises(SignOnRequired):
        client.refresh()
    client.sign_on(qr_code())
    assert client.storage["clientId"] == first["clientId"]

    # The device is deleted: the next refresh fails, and the app signs on as a new device.
    device = Device.objects.for_tenant(nagra.tenant_id).get()
    device.status = "deleted"
    device.save()
    with pytest.raises(SignOnRequired):
        client.refresh()
    assert "clientId" not in client.storage
    client.sign_on(qr_code())
    assert client.storage["clientId"] != first["clientId"]

    # The device is deleted before a sign-on: the sign-on fails, and the same QR code can be used again.
    Device.objects.for_tenant(nagra.tenant_id).update(status="deleted")
    shown = qr_code()
    with pytest.raises(SignOnRequired):
        client.sign_on(shown)
    client.sign_on(shown)
    client.refresh()

    assert Account.objects.for_tenant(nagra.tenant_id).get().account_id == "subscriber 7"
    devices = Device.objects.for_tenant(nagra.tenant_id).order_by("pk")
    assert [device.status for device in devices] == ["deleted", "deleted", "enabled"]
    assert {device.information["playoutDeviceClass"] for device in devices} == {"Android Mobile"}


def test_direct_sign_on_with_a_choice_of_accounts(
    two_with_dummy: tuple[ServerProcess, ServerProcess], nagra: HeadEnd
) -> None:
    add_trial_service(nagra.tenant_id)
    server, another = two_with_dummy
    for each in two_with_dummy:
        wait_until_served(each, nagra)
    client = PublishedClient(("127.0.0.1", server.port), nagra.tenant_id, TRIAL)

    # One account: no choice
    assert client.sign_on_directly("home", account_name="") == []
    first = client.storage["clientId"]
    client.refresh()
    assert client.sign_out() == 200

    # Several accounts: the sign-on follows the choice, with the same device.
    both, shown = "home,holiday flat", ["Account home", "Account holiday flat"]
    assert client.sign_on_directly(both, account_name="Account home") == shown
    assert (client.storage["clientId"], client.storage["accountId"]) == (first, "home")

    # The device does not belong to the other account: the app signs on as a new device.
    client.address = ("127.0.0.1", another.port)
    with pytest.raises(SignOnRequired):
        client.sign_on_directly(both, account_name="Account holiday flat")
    assert "clientId" not in client.storage
    assert client.sign_on_directly(both, account_name="Account holiday flat") == shown
    assert client.storage["accountId"] == "holiday flat"
    client.refresh()
    assert client.sign_out() == 200
    devices = Device.objects.for_tenant(nagra.tenant_id).order_by("pk")
    assert [device.account.account_id for device in devices] == ["home", "holiday flat"]
