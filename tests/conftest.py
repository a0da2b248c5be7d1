"""The cast: two operators, of which one must never see the other's, and what stands around them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client

from tenants.models import Assignment, Key, Service, Tenant
from tenants.snapshot import snapshot
from tests import NEEDS_POSTGRESQL, network

SERVICE = "Customer Auth Service"

network.close()


@dataclass
class HeadEnd:
    """An operator's back office: knows its tenant, its key and the gate's address, and nothing else."""

    tenant_id: str
    kid: str
    secret: bytes = field(repr=False)
    algorithm: str = "HS256"
    client: Client = field(default_factory=lambda: Client(raise_request_exception=False), repr=False)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """The claims of a good token; a change to None leaves a claim out."""
        good = {
            "typ": "GetSessionTokenAuthN",
            "aud": "ags",
            "exp": int(time.time()) + 300,
            "OpfTenantId": self.tenant_id,
            "OpfAccountId": "account-1",
        }
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
        """An OperatorAuthToken."""
        return jwt.encode(
            self.claims(**changes), self.secret, self.algorithm, {"kid": self.kid} | (headers or {})
        )

    def headers(self, **changes: str | None) -> dict[str, str]:
        """The headers of a good request; a change to None leaves a header out."""
        good = {"nv-tenant-id": self.tenant_id, "x-auth-service-id": SERVICE}
        changed = good | {name.replace("_", "-"): value for name, value in changes.items()}
        return {name: value for name, value in changed.items() if value is not None}

    def post(self, body: Any, **headers: str | None) -> Any:
        """Post any body to getSessionToken: bytes and text as they are, all else as JSON."""
        raw = body if isinstance(body, bytes | str) else json.dumps(body)
        content_type = headers.pop("content_type", "application/json")
        return self.client.generic(
            "POST", "/ags/getSessionToken", raw, content_type, headers=self.headers(**headers)
        )

    def present(self, token: str, **headers: str | None) -> Any:
        """Post that OperatorAuthToken."""
        return self.post({"parameters": [{"name": "OperatorAuthToken", "value": token}]}, **headers)

    def discover(self, **headers: str | None) -> Any:
        """Ask for the services."""
        return self.client.get(
            "/ags/servicediscovery", headers=self.headers(**{"x_auth_service_id": None, **headers})
        )


def operator(tenant_id: str, secret: bytes, **settings: Any) -> HeadEnd:
    """Set up an operator with one enabled service and one active key."""
    tenant = Tenant(id=tenant_id, name=tenant_id.title())
    tenant.save()
    Service(
        tenant=tenant,
        name=SERVICE,
        strategy="operator_token",
        display_name="Customer Authentication",
        logo="https://customer.example/auth.png",
        enabled=True,
        settings=settings,
    ).save()
    head_end = HeadEnd(tenant_id, f"{tenant_id}-key-1", secret)
    add_key(head_end)
    return head_end


def add_key(head_end: HeadEnd, **fields: Any) -> Key:
    """Make the gate trust the key of that head-end."""
    key = Key(
        tenant_id=head_end.tenant_id,
        kid=head_end.kid,
        algorithm=head_end.algorithm,
        **{"state": "active", **fields},
    )
    key.set_secret(head_end.secret)
    key.save()
    return key


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out on SQLite what only PostgreSQL can show; `python -m tests` says how many these are."""
    if connection.vendor != "postgresql":
        for item in items:
            if item.get_closest_marker("postgresql"):
                item.add_marker(pytest.mark.skip(reason=NEEDS_POSTGRESQL))


@pytest.fixture(autouse=True)
def _first_look() -> None:
    """Each test starts as a fresh process would: having seen no tenant."""
    snapshot.__init__()  # type: ignore[misc]


@pytest.fixture
def nagra(db: None) -> HeadEnd:
    """The operator of the tests."""
    return operator("nagra", bytes(range(1, 33)))


@pytest.fixture
def sunrise(db: None) -> HeadEnd:
    """The other operator."""
    return operator("sunrise", bytes(range(101, 133)))


@pytest.fixture
def staff(db: None) -> User:
    """Somebody who may do everything in the admin."""
    return User.objects.create_superuser("staff", password="a long staff password")


def person(group: str, *tenants: str) -> Client:
    """The browser of somebody of the staff: logged in, of that group, assigned to those tenants."""
    user = User.objects.create_user(f"{group} of {' '.join(tenants)}", is_staff=True)
    user.groups.set(Group.objects.filter(name=group))
    for tenant in tenants:
        Assignment(tenant_id=tenant, user=user).save()
    browser = Client()
    browser.force_login(user)
    return browser
