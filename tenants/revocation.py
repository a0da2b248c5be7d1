"""Killing everything that a tenant, a service, a key or an account has given rise to."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.functions import Now

from tenants.models import Configuration, Tenant


@transaction.atomic
def revoke_issued(row: Any) -> None:
    """Move `revoked_before` of the row to now: what was proven up to then is dead. Never refused."""
    tenant = Tenant.objects.filter(pk=row.pk if isinstance(row, Tenant) else row.tenant_id)
    # One after the other, so that no later moment is replaced by an earlier one.
    tenant.select_for_update(no_key=True).first()
    # By the database's clock, which the moments are from that this one is compared with.
    moment = tenant.annotate(now=Now()).values_list("now", flat=True).get()
    if isinstance(row, Configuration):
        row.save_restriction(revoked_before=moment)
    else:
        row.revoked_before = moment
        row.save(update_fields=["revoked_before"])
