"""Changes of the status of accounts and devices by staff."""

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import transaction

from ags.sessions.models import Account, AccountStatus, Device, DeviceStatus
from tenants.models import Tenant
from tenants.revocation import revoke_issued

CONCURRENT_CHANGE = "It has been changed in the meantime. This page shows its current state."


def change_status(row: Account | Device, allowed: Collection[str], status: str) -> None:
    """Raises ValidationError if the current status, in the database, is not one of `allowed`."""
    rows = type(row).objects.for_tenant(row.tenant_id).filter(pk=row.pk, status__in=allowed)
    if not rows.update(status=status):
        raise ValidationError(CONCURRENT_CHANGE)


@transaction.atomic
def cancel_account(account: Account) -> None:
    """Cancel an account permanently and revoke everything issued to it. Raises ValidationError."""
    revoke_issued(account)
    change_status(account, [AccountStatus.ACTIVE, AccountStatus.SUSPENDED], AccountStatus.CANCELLED)


@transaction.atomic
def enable_device(device: Device) -> None:
    """Raises ValidationError, also if the account is at its device limit."""
    # Sign-ons of new devices take the same lock, so the count cannot change before the commit.
    Account.objects.for_tenant(device.tenant_id).select_for_update().get(pk=device.account_id)
    limit = Tenant.objects.get(pk=device.tenant_id).device_limit
    enabled = Device.objects.for_tenant(device.tenant_id).filter(
        account=device.account_id, status=DeviceStatus.ENABLED
    )
    if limit is not None and enabled.exclude(pk=device.pk)[:limit].count() >= limit:
        raise ValidationError(
            f"The account has {limit} enabled devices, the limit of its tenant. Disable another one first."
        )
    change_status(device, [DeviceStatus.DISABLED], DeviceStatus.ENABLED)
