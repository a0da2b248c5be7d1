"""Requests to a service that verifies with the public keys of a tenant."""

from __future__ import annotations

from typing import Any

from tenants.snapshot import snapshot
from tests.support.clients import ClientApp, HeadEnd
from tests.support.operators import SIGNED


def send_token(head_end: HeadEnd, token: str, service: str = SIGNED) -> Any:
    """Request a session token with the current configuration."""
    snapshot.invalidate(head_end.tenant_id)  # otherwise it is one second old
    name = "Token" if service == SIGNED else "OperatorAuthToken"
    return head_end.post({"parameters": [{"name": name, "value": token}]}, x_auth_service_id=service)


def redeem(app: ClientApp, session_token: str) -> Any:
    body = {"parameters": [{"name": "sessionToken", "value": session_token}], "deviceInformation": {"a": 1}}
    return app.call("/ags/signOnWithSessionToken", body, x_auth_service_id=SIGNED)
