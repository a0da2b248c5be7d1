"""The outcome of the latest fetch of each upstream document."""

from django.db import models

from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped


class DocumentHealth(TenantScoped):
    """The fetch status of a document that services of a tenant depend on, identified by its URL.

    Written by the process that fetched it, and read by staff and monitoring. No request depends on it.
    """

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    address = models.CharField(max_length=500)
    good_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)
    # The reason of the latest failure, for staff; empty if the latest fetch succeeded.
    trouble = models.CharField(max_length=255, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "address"], name="one_health_of_a_document"),
        ]

    def __str__(self) -> str:
        return self.address
