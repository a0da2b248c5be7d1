"""What published client apps do, replayed over HTTP: they know these names and types, and no others."""

from __future__ import annotations

import base64
import http.client
import json
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from ags.sessions.models import Account, Device
from tests.conftest import SERVICE, TRIAL, HeadEnd, add_trial
from tests.live.conftest import warm
from tests.live.server import ServerProcess
from tests.waiting import PATIENCE

pytestmark = pytest.mark.once


class SignOnAfresh(Exception):
    """What the app raises within itself when it has to show the sign-on page."""


@dataclass
class PublishedClient:
    """Written after the behaviour of published apps, without anything of the gate's own code."""

    address: tuple[str, int]
    tenant: str
    service: str = SERVICE
    kept: dict[str, Any] = field(default_factory=dict)
    """What it writes to the storage of the device."""

    def _post(self, path: str, headers: dict[str, str], body: str | None) -> tuple[int, Any]:
        wire = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            wire.request("POST", path, body, headers)
            answer = wire.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            wire.close()

    def sign_on(self, session_token: str) -> None:
        """Sign on as the device that it is, or as a new one; keep what the next start needs."""
        status, told = self._sign_on("/ags/signOnWithSessionToken", "sessionToken", session_token)
        assert status == 201, told
        self._keep(told)

    def log_in(self, typed: str, picks: str) -> list[str]:
        """Send what the subscriber types. Where several accounts are his, he picks one by what it is called.

        Return what he had to pick from.
        """
        status, told = self._sign_on("/ags/signOn", self._wanted(), typed)
        shown = []
        if status == 300:
            tokens = {one["accountInformation"]: one["userAccountToken"] for one in told["accounts"]}
            shown = list(tokens)
            # It sends what was typed once more, and no device.
            body = {"parameters": [{"name": self._wanted().lower(), "value": typed}], "version": "3.1"}
            headers = {**self._headers(), "User-Token": tokens[picks]}
            status, told = self._afresh_if_unknown(
                *self._post("/ags/subsequentSignOn", headers, json.dumps(body))
            )
        assert status == 201, told
        self._keep(told)
        return shown

    def _wanted(self) -> str:
        """Ask discovery for the one field that must be on the sign-on page."""
        wire = http.client.HTTPConnection(*self.address, timeout=PATIENCE)
        try:
            wire.request("GET", "/ags/servicediscovery", headers={"nv-tenant-id": self.tenant})
            services = json.loads(wire.getresponse().read())["availableServices"]
        finally:
            wire.close()
        (service,) = [one for one in services if one["authServiceName"] == self.service]
        (endpoint,) = [one for one in service["endpoints"] if one["name"] == "SIGNON"]
        (wanted,) = [one for one in endpoint["parameterProperties"] if one["mandatory"]]
        name: str = wanted["name"]
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
        if "clientId" in self.kept:
            body["clientId"] = self.kept["clientId"]
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
        return self._afresh_if_unknown(*self._post(path, self._headers(), json.dumps(body)))

    def _afresh_if_unknown(self, status: int, told: Any) -> tuple[int, Any]:
        """Forget the clientId of a device that is deleted or unknown."""
        if status == 403 and told["code"] == 20003:
            del self.kept["clientId"]
            raise SignOnAfresh
        return status, told

    def refresh(self) -> None:
        """Stay signed on: no body, no content type, and the tenant under its older name."""
        headers = {"Authorization": f"Bearer {self.kept['refresh_token']}", "tenantId": self.tenant}
        status, told = self._post("/ias/v3/token/actions/refresh", headers, None)
        status, told = self._afresh_if_unknown(status, told)
        if status == 401:
            raise SignOnAfresh
        assert status == 200, told
        self._keep(told)

    def sign_out(self) -> int:
        """Send the access token as it is, without a scheme."""
        headers = {
            "Authorization": self.kept["access_token"],
            "nv-tenant-id": self.tenant,
            "x-auth-service-id": self.service,
        }
        return self._post("/ags/signOut", headers, None)[0]

    def end(self) -> int:
        """Read when the access token ends, as a browser does: decoded, never verified."""
        payload = self.kept["access_token"].split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        assert type(end) is int
        assert end < 10**11, "in seconds, not in milliseconds"
        return end

    def _keep(self, told: dict[str, Any]) -> None:
        for name in ("expires_in", "refresh_expires_in"):
            assert type(told[name]) is int
        assert told["token_type"].lower() == "bearer"
        self.kept |= {
            "clientId": told["client_id"],
            "accountId": told["accountId"],
            "access_token": told["access_token"],
            "refresh_token": told["refresh_token"],
            "refresh_at": told["expires_in"] - 60,
            "forget_at": told["refresh_expires_in"],
        }


def test_a_published_client_signs_on_stays_signed_on_and_signs_on_afresh(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)
    client = PublishedClient(("127.0.0.1", server.port), nagra.tenant_id)

    def qr_code() -> str:
        token: str = head_end.present(head_end.token(OpfAccountId="subscriber 7")).json()["sessionToken"]
        return token

    # The first sign-on of the device
    before_it = int(time.time())
    client.sign_on(qr_code())
    assert before_it + 3600 <= client.end() <= int(time.time()) + 3600
    first = dict(client.kept)
    assert first["accountId"] == "subscriber 7"
    assert (first["refresh_at"], first["forget_at"]) == (3540, 172_800)

    # The next days
    for _ in range(3):
        before, before_it = dict(client.kept), int(time.time())
        client.refresh()
        assert client.kept["clientId"] == first["clientId"]
        assert client.kept["access_token"] != before["access_token"]
        assert client.kept["refresh_token"] != before["refresh_token"]
        assert before_it + 3600 <= client.end() <= int(time.time()) + 3600

    # Signed out, and on again as the same device
    assert client.sign_out() == 200
    with pytest.raises(SignOnAfresh):
        client.refresh()
    client.sign_on(qr_code())
    assert client.kept["clientId"] == first["clientId"]

    # The device is deleted: the app meets it at its next refresh, forgets its clientId, and signs on afresh.
    device = Device.objects.for_tenant(nagra.tenant_id).get()
    device.status = "deleted"
    device.save()
    with pytest.raises(SignOnAfresh):
        client.refresh()
    assert "clientId" not in client.kept
    client.sign_on(qr_code())
    assert client.kept["clientId"] != first["clientId"]

    # Deleted while the app slept: it meets it at the sign-on, and the same QR code is still good.
    Device.objects.for_tenant(nagra.tenant_id).update(status="deleted")
    shown = qr_code()
    with pytest.raises(SignOnAfresh):
        client.sign_on(shown)
    client.sign_on(shown)
    client.refresh()

    assert Account.objects.for_tenant(nagra.tenant_id).get().account_id == "subscriber 7"
    devices = Device.objects.for_tenant(nagra.tenant_id).order_by("pk")
    assert [device.status for device in devices] == ["deleted", "deleted", "enabled"]
    assert {device.information["playoutDeviceClass"] for device in devices} == {"Android Mobile"}


def test_a_published_client_that_is_typed_into_lets_its_subscriber_pick_an_account(
    two_with_dummy: tuple[ServerProcess, ServerProcess], nagra: HeadEnd
) -> None:
    add_trial(nagra.tenant_id)
    server, another = two_with_dummy
    for one in two_with_dummy:
        warm(one, nagra)
    client = PublishedClient(("127.0.0.1", server.port), nagra.tenant_id, TRIAL)

    # One account: no page to pick from
    assert client.log_in("home", picks="") == []
    first = client.kept["clientId"]
    client.refresh()
    assert client.sign_out() == 200

    # Several: nothing is signed on before he has picked, and the device is the one that it was.
    both, shown = "home,holiday flat", ["Account home", "Account holiday flat"]
    assert client.log_in(both, picks="Account home") == shown
    assert (client.kept["clientId"], client.kept["accountId"]) == (first, "home")

    # The other account does not know this device: the app forgets its clientId, and signs on afresh.
    client.address = ("127.0.0.1", another.port)
    with pytest.raises(SignOnAfresh):
        client.log_in(both, picks="Account holiday flat")
    assert "clientId" not in client.kept
    assert client.log_in(both, picks="Account holiday flat") == shown
    assert client.kept["accountId"] == "holiday flat"
    client.refresh()
    assert client.sign_out() == 200
    devices = Device.objects.for_tenant(nagra.tenant_id).order_by("pk")
    assert [device.account.account_id for device in devices] == ["home", "holiday flat"]
