"""Changing what an account or a device may do, without a moment in which somebody else's change is lost."""

from __future__ import annotations

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import transaction

from ags.sessions.models import Account, AccountStatus, Device, DeviceStatus
from ags.sessions.services.revoke import revoke_issued
from tenants.models import Tenant

CHANGED = "It has changed meanwhile: this is how it is now."


def change(row: Account | Device, before: Collection[str], after: str) -> None:
    """Give the row a status, if it still has one of those. Raises ValidationError."""
    rows = type(row).objects.for_tenant(row.tenant_id).filter(pk=row.pk, status__in=before)
    if not rows.update(status=after):
        raise ValidationError(CHANGED)


@transaction.atomic
def cancel(account: Account) -> None:
    """Refuse an account for good: what it had does not come back. Raises ValidationError."""
    revoke_issued(account)
    change(account, [AccountStatus.ACTIVE, AccountStatus.SUSPENDED], AccountStatus.CANCELLED)


@transaction.atomic
def enable(device: Device) -> None:
    """Let a disabled device in again, if its account has room for it. Raises ValidationError."""
    # Held until the end, as by a first sign-on: what is counted next stays so.
    Account.objects.for_tenant(device.tenant_id).select_for_update().get(pk=device.account_id)
    limit = Tenant.objects.get(pk=device.tenant_id).device_limit
    enabled = Device.objects.for_tenant(device.tenant_id).filter(
        account=device.account_id, status=DeviceStatus.ENABLED
    )
    if limit is not None and enabled.exclude(pk=device.pk)[:limit].count() >= limit:
        raise ValidationError(
            f"The account has {limit} enabled devices, as many as its tenant allows: disable another first."
        )
    change(device, [DeviceStatus.DISABLED], DeviceStatus.ENABLED)
