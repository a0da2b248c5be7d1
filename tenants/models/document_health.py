"""How fetching the documents of upstreams goes, as the processes tell it."""

from __future__ import annotations

from django.db import models

from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped


class DocumentHealth(TenantScoped):
    """One document that services of a tenant rely on, known by its address.

    Written by whichever process has fetched it, and read by people and by what watches over AGS. No request
    is judged by it.
    """

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    address = models.CharField(max_length=500)
    good_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    # Why the latest fetch failed, in words for staff; empty when it was good.
    trouble = models.CharField(max_length=255, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "address"], name="one_health_of_a_document"),
        ]

    def __str__(self) -> str:
        return self.address
