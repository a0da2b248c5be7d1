"""Sign-ons of devices: requests, tokens and rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
from django.db.models import F

from ags.sessions.models import Device, SecurityEvent
from tenants.models import SigningKey, Tenant
from tenants.secrets.encryption import derive_keys, fingerprint
from tenants.snapshot import snapshot
from tests.support.clients import ClientApp
from tests.support.responses import CORRELATION_ID


def get_kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def shift_signing_keys(time: timedelta) -> None:
    """Shift the timestamps of the keys instead of waiting."""
    SigningKey.unscoped.update(published_at=F("published_at") - time, needed_until=F("needed_until") - time)


def redeem_token(app: ClientApp, token: str, **members: Any) -> Any:
    """Redeem a session token with a fixed correlation ID."""
    device = members or {"deviceInformation": {}}
    body = {"parameters": [{"name": "sessionToken", "value": token}], **device}
    return app.call("/ags/signOnWithSessionToken", body, x_correlation_id=CORRELATION_ID)


def get_devices(tenant_id: str = "nagra") -> list[Device]:
    return list(Device.objects.for_tenant(tenant_id).order_by("pk"))


def get_events(tenant_id: str = "nagra") -> list[tuple[str, str, int]]:
    rows = SecurityEvent.objects.for_tenant(tenant_id).order_by("pk")
    return list(rows.values_list("kind", "account_id", "times"))


def update_row(model: Any, **fields: Any) -> None:
    """Change the only row of nagra with `update()`, which does not increment the version."""
    rows = model.objects.filter(pk="nagra") if model is Tenant else model.objects.for_tenant("nagra")
    assert rows.update(**fields) == 1


DEVICE_INFORMATION = {
    "deviceType": "Android TV",
    "playoutDeviceClass": "STB",
    "device": {"screen": {"width": 3840}, "hardware": {"model": "Schüssel 📺"}, "OS": {"version": "14"}},
    "securePlayer": {"codecs": ["AVC", "HEVC"], "DRMs": []},
    "CPU": {"neon": True, "cores": 4, "load": 0.5},
    "GPU": None,
    "an unknown member": {"": [[], {}, False, 1.5, -(2**60), "x" * 5000]},
}

REFRESH_PATH = "/ias/v3/token/actions/refresh"


def get_device() -> Device:
    return Device.objects.for_tenant("nagra").get()


def decode_claims(token: str) -> dict[str, Any]:
    payload: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return payload


def age_sign_on(seconds: float) -> None:
    """Shift all times of the row into the past, instead of waiting."""
    row = get_device()
    for name in ("proven_at", "signed_on_at", "refresh_expires_at", "fixed_expires_at"):
        setattr(row, name, getattr(row, name) - timedelta(seconds=seconds))
    row.used = [[generation, at - seconds] for generation, at in row.used]
    row.save()


def sign_refresh_claims(payload: dict[str, Any]) -> str:
    """Sign these claims with the key of the refresh tokens."""
    key = derive_keys(b"refresh token")[0]
    return jwt.encode(payload, key, "HS256", {"kid": fingerprint(key)})


def set_grace_period_of_a_minute() -> None:
    """Avoid a dependency on the speed of the test."""
    tenant = Tenant.objects.get(pk="nagra")
    tenant.refresh_grace = 60
    tenant.save()
    snapshot.invalidate("nagra")


def sign_with_tenant_key(payload: dict[str, Any], **header: Any) -> str:
    key = SigningKey.objects.for_tenant("nagra").get(state="active")
    return jwt.encode(payload, key.secret(), key.algorithm, {"kid": key.kid, **header})
