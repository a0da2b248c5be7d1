"""Revokes everything that was issued for a tenant, a service, a key or an account."""

from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from tenants.models import ConfigurationModel, Tenant


@transaction.atomic
def revoke_issued(row: Any) -> None:
    """Set `revoked_before` of the row to the current time: everything issued up to then is revoked.

    Skips validation, so that a revocation cannot fail.
    """
    tenant = Tenant.objects.filter(pk=row.pk if isinstance(row, Tenant) else row.tenant_id)
    # Serialize revocations, so that an earlier time cannot replace a later one.
    tenant.select_for_update(no_key=True).first()
    # Use the clock of the database: the times that are compared with this one come from it too.
    now = tenant.annotate(now=Now()).values_list("now", flat=True).get()
    if isinstance(row, ConfigurationModel):
        row.save_restriction(revoked_before=now)
    else:
        row.revoked_before = now
        row.save(update_fields=["revoked_before"])
