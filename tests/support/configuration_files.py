"""Entries of configuration files."""

from __future__ import annotations

import base64
from typing import Any

from django.test.utils import CaptureQueriesContext

from tenants.models import Key, ResourceServer, Service, Tenant
from tests.support.clients import SERVICE

SECRET = "a secret of the operator, 34 bytes"
SECRET_BYTES = SECRET.encode()


def service(**changes: Any) -> dict[str, Any]:
    members = {
        "name": SERVICE,
        "strategy": "operator_token",
        "display_name": "Customer Authentication",
        "enabled": True,
        "settings": {"clock_skew": 60},
    }
    return without_none(members | changes)


def key(**changes: Any) -> dict[str, Any]:
    return without_none({"kid": "key-1", "state": "active", "secret": {"text": SECRET}} | changes)


def tenant(**changes: Any) -> dict[str, Any]:
    members = {"id": "nagra", "name": "Nagra", "services": [service()], "keys": [key()]}
    return {"tenants": [without_none(members | changes)]}


def without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def rows() -> list[dict[str, Any]]:
    return [
        dict(row)
        for model in (Tenant, Service, Key, ResourceServer)
        for row in model._base_manager.order_by("pk").values()
    ]


def writes(captured: CaptureQueriesContext) -> list[str]:
    return [query["sql"] for query in captured if query["sql"].startswith(("INSERT", "UPDATE", "DELETE"))]


BASE64 = base64.b64encode(bytes(range(190, 254))).decode()


SECRETS: dict[str, tuple[dict[str, str], bytes]] = {
    "text": ({"text": SECRET}, SECRET_BYTES),
    "base64": ({"base64": BASE64}, bytes(range(190, 254))),
    "base64url": ({"base64url": BASE64.replace("/", "_").replace("+", "-")}, bytes(range(190, 254))),
    "a variable": ({"env": "OPERATOR_SECRET"}, SECRET_BYTES),
    "a variable in base64": ({"env": "OPERATOR_BASE64", "encoding": "base64"}, bytes(range(190, 254))),
    "a file": ({"file": "secret.txt"}, SECRET_BYTES),
    "a file in another folder": ({"file": "../elsewhere/secret.b64", "encoding": "base64"}, SECRET_BYTES),
}


def at_secret(secret: Any) -> dict[str, Any]:
    return tenant(keys=[key(secret=secret)])


SERVICE_0 = "tenants[0].services[0]"


KEY_0 = "tenants[0].keys[0]"
