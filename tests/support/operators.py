"""Operators, their services and keys."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from django.db.models.base import ModelState
from django.test import Client

from tenants.models import Key, ResourceServer, Service, SigningKey, Tenant
from tenants.snapshot import snapshot
from tenants.times import get_database_time
from tests.support.clients import SERVICE, TRIAL, HeadEnd, Platform
from tests.support.tokens import ISSUER
from tests.support.upstream.signer import Signer

SIGNED = "Signed JWT"


def create_platform(tenant_id: str, **fields: Any) -> Platform:
    """Save a resource server of an operator, which this process uses immediately."""
    server = ResourceServer(tenant_id=tenant_id, name="Platform", **fields)
    secret = server.set_credentials()
    server.save()
    snapshot.invalidate(tenant_id)
    return Platform(server.client_id, secret)


def create_operator(tenant_id: str, secret: bytes, *, is_limited: bool = True, **settings: Any) -> HeadEnd:
    """Save an operator with one enabled service and one active key.

    `is_limited = False`: for tests with any number of requests for one account, or of refused requests.
    """
    tenant = Tenant(id=tenant_id, name=tenant_id.title())
    if not is_limited:
        tenant.max_sign_ons_per_account = tenant.max_failures_per_address = 0
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


def add_trial_service(tenant_id: str) -> Service:
    """Save a service that accepts every account. This process uses it immediately."""
    service = Service(tenant_id=tenant_id, name=TRIAL, strategy="dummy", display_name=TRIAL, enabled=True)
    service.save()
    snapshot.invalidate(tenant_id)
    return service


def add_key(head_end: HeadEnd, **fields: Any) -> Key:
    """Save the key of a head-end."""
    key = Key(
        tenant_id=head_end.tenant_id,
        kid=head_end.kid,
        algorithm=head_end.algorithm,
        **{"state": "active", **fields},
    )
    key.set_secret(head_end.secret)
    key.save()
    return key


def add_public_key(own: Signer, tenant_id: str = "nagra", **fields: Any) -> Key:
    """Save the public key of a signer."""
    key = Key(tenant_id=tenant_id, kid=own.kid, algorithm=own.algorithm, **{"state": "active", **fields})
    key.set_public_key(own.pem)
    key.save()
    return key


def add_signed_jwt_service(
    tenant_id: str = "nagra", *, settings: Mapping[str, Any] = MappingProxyType({})
) -> Service:
    """Save a service that verifies with the public keys of the tenant."""
    rules: dict[str, Any] = {"keys_from": "tenant", "issuer": ISSUER, "audience": "ags", **settings}
    service = Service(
        tenant_id=tenant_id,
        name=SIGNED,
        strategy="signed_jwt",
        display_name=SIGNED,
        enabled=True,
        settings=rules,
    )
    service.save()
    snapshot.invalidate(tenant_id)
    return service


class SavedOperator:
    """The rows that `create_operator` saved, which can be inserted again without validation."""

    def __init__(self, head_end: HeadEnd) -> None:
        self.head_end = head_end
        self._tenant = Tenant.objects.get(pk=head_end.tenant_id)
        self._saved_at = get_database_time()
        self._rows: list[tuple[Any, list[Any]]] = [
            (row, list(row.history.all()))
            for model in (SigningKey, Service, Key)
            for row in model.objects.for_tenant(self._tenant)
        ]
        self._rows.insert(0, (self._tenant, list(self._tenant.history.all())))

    def insert(self) -> HeadEnd:
        """Insert the rows and their history under new primary keys, with signing keys as old as they were."""
        age = get_database_time() - self._saved_at
        for saved, history in self._rows:
            row = _copy_unsaved(saved, pk=saved.pk if saved is self._tenant else None)
            if isinstance(row, SigningKey):
                row.published_at += age
            row.save_base(raw=True, force_insert=True)
            records = [_copy_unsaved(record, pk=None, id=row.pk) for record in history]
            type(history[0]).objects.bulk_create(records)
        return replace(self.head_end, client=Client(raise_request_exception=False))


def _copy_unsaved(row: Any, **changes: Any) -> Any:
    row = copy.copy(row)
    row._state = ModelState()
    for name, value in changes.items():
        setattr(row, name, value)
    return row
