"""What the gate has issued."""

from django.db import models
from django.db.models.functions import Now

from tenants.models import Key, Service, Tenant
from tenants.scoping import TenantScoped


class SessionToken(TenantScoped):
    """A session token: proof, redeemable once, that a service of a tenant knew the account.

    Only a keyed hash of the token is stored. Rows are written by `issue` and by nothing else.
    """

    # The INSERT takes tenant, service and key from their rows, and none of these is ever deleted while it has
    # tokens, so a constraint would only cost a lock on three busy rows each time.
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    service = models.ForeignKey(
        Service, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        Key, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    token_hash = models.BinaryField(max_length=32, editable=False)
    account_id = models.CharField("account ID", max_length=255)
    correlation_id = models.CharField("correlation ID", max_length=128)
    jti = models.CharField(max_length=255, null=True)  # noqa: DJ001 - absent and empty differ
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    # When the row may be deleted: once the token has expired and the assertion behind it, where it has a jti,
    # could not be replayed any more.
    dead_after = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "token_hash"], name="one_token_of_a_hash"),
            models.UniqueConstraint(
                fields=["tenant", "key", "jti"],
                condition=models.Q(jti__isnull=False),
                name="one_token_of_a_jti",
            ),
            # Where no key proves, NULL would keep no two apart: the service stands in.
            models.UniqueConstraint(
                fields=["tenant", "service", "jti"],
                condition=models.Q(jti__isnull=False, key__isnull=True),
                name="one_token_of_a_jti_without_key",
            ),
        ]
        indexes = [
            models.Index(fields=["tenant", "account_id", "created_at"], name="tokens_of_an_account"),
            models.Index(
                fields=["tenant", "correlation_id", "created_at"], name="tokens_of_a_correlation_id"
            ),
        ]

    def __str__(self) -> str:
        return f"session token {self.pk}"
