"""Links that explain a request, and the model of the page that explains requests."""

from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from ags.sessions.models import Event
from tenants.models import Tenant
from tenants.scoping import TenantScoped


class ExplainedRequest(Event):
    """A request that the admin explains. It has no table: the admin lists models only."""

    class Meta:
        proxy = True
        # The page needs the permission to view events.
        default_permissions = ()
        verbose_name = "explained request"
        verbose_name_plural = "explain a request"


class ExplanationLink(TenantScoped):
    """A link with which another company reads the explanation of one request, without an account.

    `event`: the `AuditEvent.id` of the request. `created_by`: a username.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    event = models.CharField(max_length=64)
    correlation_id = models.CharField("correlation ID", max_length=128)
    created_at = models.DateTimeField(db_default=Now())
    created_by = models.CharField(max_length=255)
    expires_at = models.DateTimeField(db_index=True)
    revoked_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"Link {self.pk}"

    @property
    def state(self) -> str:
        if self.revoked_at is not None:
            return "revoked"
        return "valid" if self.expires_at > timezone.now() else "expired"
