"""Stored counts of the use of keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ags.database.clock import get_database_time
from tenants.models import Key, KeyUse


def add_key_use(kid: str, *, tenant_id: str = "nagra", minutes: int = 0, **columns: Any) -> KeyUse:
    """Store the use of a key in a period that began so many minutes ago."""
    time = get_database_time() - timedelta(minutes=minutes)
    values = {"accepted": 0, "refused": 0, **columns}
    for name in ("accepted", "refused"):
        values.setdefault(f"{name}_at", time if values[name] else None)
    key = Key.objects.for_tenant(tenant_id).get(kid=kid)
    return KeyUse.unscoped.create(tenant_id=tenant_id, key=key, began_at=time, **values)


def sum_uses(kid: str, tenant_id: str = "nagra") -> tuple[int, int]:
    """Return how many requests with the key were accepted and refused."""
    rows = KeyUse.objects.for_tenant(tenant_id).filter(key__kid=kid)
    return sum(row.accepted for row in rows), sum(row.refused for row in rows)
