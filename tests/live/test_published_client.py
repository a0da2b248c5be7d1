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
from tests.conftest import SERVICE, HeadEnd
from tests.live.conftest import warm
from tests.live.server import ServerProcess

pytestmark = pytest.mark.xdist_group("live")


class SignOnAfresh(Exception):
    """What the app raises within itself when it has to show the sign-on page."""


@dataclass
class PublishedClient:
    """Written after the behaviour of published apps, without anything of the gate's own code."""

    address: tuple[str, int]
    tenant: str
    kept: dict[str, Any] = field(default_factory=dict)
    """What it writes to the storage of the device."""

    def _post(self, path: str, headers: dict[str, str], body: str | None) -> tuple[int, Any]:
        wire = http.client.HTTPConnection(*self.address, timeout=10)
        try:
            wire.request("POST", path, body, headers)
            answer = wire.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            wire.close()

    def sign_on(self, session_token: str) -> None:
        """Sign on as the device that it is, or as a new one; keep what the next start needs."""
        body: dict[str, Any] = {
            "parameters": [{"name": "sessionToken", "value": session_token}],
            "version": "3.1",
        }
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
        headers = {
            "Content-Type": "application/json",
            "Accept-Language": "en-GB",
            "nv-tenant-id": self.tenant,
            "x-auth-service-id": SERVICE,
        }
        status, told = self._post("/ags/signOnWithSessionToken", headers, json.dumps(body))
        if status == 403 and told["code"] == 20003:
            del self.kept["clientId"]
            raise SignOnAfresh
        assert status == 201, told
        self._keep(told)

    def refresh(self) -> None:
        """Stay signed on: no body, no content type, and the tenant under its older name."""
        headers = {"Authorization": f"Bearer {self.kept['refresh_token']}", "tenantId": self.tenant}
        status, told = self._post("/ias/v3/token/actions/refresh", headers, None)
        if status == 403 and told["code"] == 20003:
            del self.kept["clientId"]
            raise SignOnAfresh
        if status == 401:
            raise SignOnAfresh
        assert status == 200, told
        self._keep(told)

    def sign_out(self) -> int:
        """Send the access token as it is, without a scheme."""
        headers = {
            "Authorization": self.kept["access_token"],
            "nv-tenant-id": self.tenant,
            "x-auth-service-id": SERVICE,
        }
        return self._post("/ags/signOut", headers, None)[0]

    def seconds_left(self) -> int:
        """Read when the access token ends, as a browser does: decoded, never verified."""
        payload = self.kept["access_token"].split(".")[1]
        end = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
        assert type(end) is int
        assert end < 10**11, "in seconds, not in milliseconds"
        return end - int(time.time())

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
    client.sign_on(qr_code())
    first = dict(client.kept)
    assert first["accountId"] == "subscriber 7"
    assert (first["refresh_at"], first["forget_at"]) == (3540, 172_800)
    assert 3590 <= client.seconds_left() <= 3600

    # The next days
    for _ in range(3):
        before = dict(client.kept)
        client.refresh()
        assert client.kept["clientId"] == first["clientId"]
        assert client.kept["access_token"] != before["access_token"]
        assert client.kept["refresh_token"] != before["refresh_token"]
        assert 3590 <= client.seconds_left() <= 3600

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
