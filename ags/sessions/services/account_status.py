"""Changes of the status of accounts, devices and session tokens by staff, and their events."""

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now

from ags.sessions.models import Account, AccountStatus, Device, DeviceStatus, SessionToken
from ags.sessions.services.staff_events import record_staff_action
from tenants.models import Tenant
from tenants.revocation import revoke_issued

CONCURRENT_CHANGE = "It has been changed in the meantime. This page shows its current state."


@transaction.atomic
def change_status(row: Account | Device, allowed: Collection[str], status: str, *, action: str) -> None:
    """Raises ValidationError if the current status, in the database, is not one of `allowed`.

    `action`: the reason code of the event.
    """
    rows = type(row).objects.for_tenant(row.tenant_id).filter(pk=row.pk)
    before = rows.select_for_update(no_key=True).values_list("status", flat=True).first()
    if before not in allowed:
        raise ValidationError(CONCURRENT_CHANGE)
    rows.update(status=status)
    record_staff_action(row, action, {"status": before}, {"status": status})


@transaction.atomic
def cancel_account(account: Account) -> None:
    """Cancel an account permanently and revoke everything issued to it. Raises ValidationError."""
    revoke_issued(account)
    change_status(
        account,
        [AccountStatus.ACTIVE, AccountStatus.SUSPENDED],
        AccountStatus.CANCELLED,
        action="cancel",
    )


@transaction.atomic
def revoke_all(account: Account) -> None:
    """Revoke everything issued to an account."""
    before = account.revoked_before
    revoke_issued(account)
    record_staff_action(
        account,
        "revoke_all",
        {"revoked_before": before and before.isoformat()},
        {"revoked_before": account.revoked_before and account.revoked_before.isoformat()},
    )


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
    change_status(device, [DeviceStatus.DISABLED], DeviceStatus.ENABLED, action="enable")


@transaction.atomic
def revoke_session_token(token: SessionToken) -> None:
    """Revoke a session token, unless it is revoked."""
    rows = SessionToken.objects.for_tenant(token.tenant_id).filter(pk=token.pk, revoked_at=None)
    if rows.update(revoked_at=Now()):
        record_staff_action(token, "revoke", {"revoked": False}, {"revoked": True})
