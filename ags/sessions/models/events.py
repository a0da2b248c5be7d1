"""The events that no row of another model records."""

from django.db import models
from django.db.models.functions import Now

from tenants.models import Tenant
from tenants.scoping import TenantScoped


class SecurityEvent(TenantScoped):
    """A sign of a stolen token. One row per kind and subject; repetitions increment `times`."""

    class Kind(models.TextChoices):
        SESSION_TOKEN_REUSED = "session_token_reused", "A redeemed session token was presented again"
        REFRESH_TOKEN_REUSED = "refresh_token_reused", "A used refresh token was presented again"
        USER_ACCOUNT_TOKEN_REUSED = (
            "user_account_token_reused",
            "A used user account token was presented again",
        )

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    kind = models.CharField(max_length=32, choices=Kind)
    # The primary key of the session token or of the choice, or the ID of the sign-on.
    subject = models.CharField(max_length=64)
    account_id = models.CharField("account ID", max_length=255)
    correlation_id = models.CharField("correlation ID", max_length=128, help_text="Of the latest time.")
    first_at = models.DateTimeField(db_default=Now())
    latest_at = models.DateTimeField(db_default=Now(), db_index=True)
    times = models.PositiveIntegerField(default=1)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kind", "subject"], name="one_event_of_a_subject"),
        ]
        indexes = [
            models.Index(fields=["tenant", "latest_at"], name="events_of_a_tenant"),
            models.Index(fields=["tenant", "account_id", "latest_at"], name="events_of_an_account"),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()


class Event(TenantScoped):
    """An event of the audit trail that no other row records.

    `services.events`, `services.staff_events`, `services.refusals` and `ags.explanations.links` are the only
    writers.
    Grants and redemptions are rows of `SessionToken`, and signs of stolen tokens of `SecurityEvent`.
    """

    class Kind(models.TextChoices):
        SIGNED_ON = "signed_on", "Signed on, with one of several accounts"
        SIGN_ON_ENDED = "sign_on_ended", "Sign-on ended"
        ACCESS_TOKEN_REVOKED = "access_token_revoked", "Access token revoked"
        REFUSED = "refused", "Request refused"
        FAILED = "failed", "Request failed"
        OMITTED = "omitted", "Refused requests that were only counted"
        CONFIGURATION_CHANGED = "configuration_changed", "Configuration changed"
        STAFF_ACTION = "staff_action", "Action of staff"
        EXPLANATION_OPENED = "explanation_opened", "Explanation opened with a link"

    # NULL: of no tenant. No constraint: a refusal must not lock the row of its tenant, and events outlive it.
    tenant = models.ForeignKey(
        Tenant, models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False, null=True
    )
    kind = models.CharField(max_length=32, choices=Kind)
    created_at = models.DateTimeField(db_default=Now())
    service = models.CharField(max_length=128, blank=True)
    kid = models.CharField(max_length=128, blank=True)
    correlation_id = models.CharField("correlation ID", max_length=128, blank=True)
    client_address = models.GenericIPAddressField(null=True)
    account_id = models.CharField("account ID", max_length=255, blank=True)
    client_id = models.CharField("client ID", max_length=128, blank=True)
    actor = models.CharField(max_length=255, blank=True, help_text="A member of staff, or a resource server.")
    reason = models.CharField(max_length=64, blank=True)
    details = models.JSONField(default=dict)

    class Meta:
        verbose_name_plural = "audit trail"
        indexes = [
            # Also for the purge.
            models.Index(fields=["tenant", "created_at"], name="audit_events_of_a_tenant"),
            # PostgreSQL does not use the order of the index above for `tenant IS NULL`.
            models.Index(
                fields=["created_at"],
                condition=models.Q(tenant__isnull=True),
                name="audit_events_of_no_tenant",
            ),
            models.Index(fields=["correlation_id"], name="events_of_a_correlation_id"),
            models.Index(
                fields=["tenant", "account_id", "created_at"],
                condition=~models.Q(account_id=""),
                name="audit_events_of_an_account",
            ),
            models.Index(
                fields=["tenant", "client_id", "created_at"],
                condition=~models.Q(client_id=""),
                name="audit_events_of_a_device",
            ),
        ]

    def __str__(self) -> str:
        return self.get_kind_display()
