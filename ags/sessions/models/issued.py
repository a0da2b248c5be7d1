"""Models of everything that AGS issues, and of the accounts and devices that it issues it to."""

from django.db import models
from django.db.models.functions import Now

from tenants.models import Key, Service, Tenant
from tenants.scoping import TenantScoped


class Issued(TenantScoped):
    """A row for a proof of a service, with the key that verified it."""

    # No foreign key constraints: the INSERT selects tenant, service and key from their tables, and rows with
    # tokens are never deleted. A constraint would only lock three busy rows on each INSERT.
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    service = models.ForeignKey(
        Service, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        Key, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )

    class Meta:
        abstract = True


class SessionToken(Issued):
    """A single-use token that proves that a service of the tenant has authenticated the account.

    Only a keyed hash of the token is stored. `services.issue` is the only writer of rows, and
    `services.redeem` of redemptions. The row is also the event of both in the audit trail, so it is kept for
    `Tenant.event_retention`.
    """

    token_hash = models.BinaryField(max_length=32, editable=False)
    account_id = models.CharField("account ID", max_length=255)
    correlation_id = models.CharField("correlation ID", max_length=128)
    jti = models.CharField(max_length=255, null=True)  # noqa: DJ001 - absent and empty differ
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    # After this time, the row is only an event: the token has expired, and its assertion, if it has a jti,
    # can no longer be replayed.
    dead_after = models.DateTimeField()
    # Of the request that was granted: the key ID in its token, and the client.
    kid = models.CharField(max_length=128, null=True)  # noqa: DJ001 - unknown in rows of earlier releases
    client_address = models.GenericIPAddressField(null=True)

    # The redemption
    redeemed_at = models.DateTimeField(null=True)
    redemption_correlation_id = models.CharField("correlation ID", max_length=128, null=True)  # noqa: DJ001
    redemption_address = models.GenericIPAddressField("client address", null=True)
    client_id = models.CharField("client ID", max_length=128, null=True)  # noqa: DJ001 - the device

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "token_hash"], name="one_token_of_a_hash"),
            models.UniqueConstraint(
                fields=["tenant", "key", "jti"],
                condition=models.Q(jti__isnull=False),
                name="one_token_of_a_jti",
            ),
            # NULLs are distinct in a unique index, so without a key uniqueness is per service.
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
            # For searching by time, and the purge. The index has all that it reads of rows it must keep.
            models.Index(fields=["tenant", "created_at", "dead_after"], name="tokens_of_a_time"),
            models.Index(
                fields=["tenant", "redeemed_at"],
                condition=models.Q(redeemed_at__isnull=False),
                name="redemptions_of_a_time",
            ),
            models.Index(
                fields=["tenant", "redemption_correlation_id"],
                condition=models.Q(redemption_correlation_id__isnull=False),
                name="redemptions_of_an_id",
            ),
        ]

    def __str__(self) -> str:
        return f"session token {self.pk}"


class AccountStatus(models.TextChoices):
    """Only active accounts can sign on, refresh and use their tokens."""

    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended: it cannot sign on until it is reactivated"
    CANCELLED = "cancelled", "Cancelled: it can never sign on again"


class Account(TenantScoped):
    """A subscriber, under the operator's ID. Created by the first sign-on or by staff."""

    # No index on the tenant alone: without statistics, the planner prefers it to the unique index below and
    # reads all accounts.
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    account_id = models.CharField("account ID", max_length=255)
    status = models.CharField(max_length=9, choices=AccountStatus, default=AccountStatus.ACTIVE)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    revoked_before = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "account_id"], name="one_account_of_an_id")]

    def __str__(self) -> str:
        return self.account_id


class DeviceStatus(models.TextChoices):
    """Only enabled devices can sign on and use their tokens, and count towards the device limit."""

    ENABLED = "enabled", "Enabled"
    DISABLED = "disabled", "Disabled: it cannot sign on until it is enabled"
    DELETED = "deleted", "Deleted: its app signs on as a new device"


class Device(Issued):
    """A device of an account and its current sign-on.

    A new sign-on replaces the previous one. `sign_on` is its ID in all tokens issued for it. Refresh tokens
    are not stored, only the number of the newest one: `generation`.
    """

    account = models.ForeignKey(Account, models.PROTECT, related_name="devices", db_index=False)
    client_id = models.CharField("client ID", max_length=32, editable=False)
    status = models.CharField(max_length=8, choices=DeviceStatus, default=DeviceStatus.ENABLED)
    information = models.JSONField("device information")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # The sign-on
    sign_on = models.CharField(max_length=32, editable=False)
    correlation_id = models.CharField("correlation ID", max_length=128)
    # When the proof was accepted; compared with each `revoked_before`.
    proven_at = models.DateTimeField()
    signed_on_at = models.DateTimeField()
    fixed_expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=32, blank=True)
    generation = models.PositiveIntegerField(default=0)
    refresh_expires_at = models.DateTimeField()
    # Of `services.usernames`, if the sign-on proved a password; NULL otherwise.
    username_hash = models.BinaryField(max_length=32, null=True, editable=False)
    # Recently used refresh tokens: [[generation, seconds since the epoch], …], newest last. A missing
    # generation counts as used together with the next one: a restored database has lost its use.
    used = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "client_id"], name="one_device_of_a_client_id"),
            models.UniqueConstraint(fields=["tenant", "sign_on"], name="one_device_of_a_sign_on"),
        ]
        indexes = [
            # For counting the enabled devices of an account, and listing all of them.
            models.Index(fields=["tenant", "account", "status"], name="devices_of_an_account"),
            # For the purge: few devices are deleted.
            models.Index(
                fields=["fixed_expires_at"],
                condition=models.Q(status=DeviceStatus.DELETED),
                name="deleted_devices",
            ),
            # For the purge of unused devices. Refreshing changes none of its columns.
            models.Index(
                fields=["tenant", "fixed_expires_at"],
                condition=models.Q(status=DeviceStatus.ENABLED),
                name="enabled_devices_by_end",
            ),
        ]

    def __str__(self) -> str:
        return self.client_id


class AccountChoice(Issued):
    """A proof that matches several accounts. The subscriber can choose one of them, once, for one device.

    All user account tokens of a choice share one secret, followed by an index into `accounts`. Only a keyed
    hash of the secret is stored. `services.account_choice` is the only writer.
    """

    token_hash = models.BinaryField(max_length=32, editable=False)
    accounts = models.JSONField("account IDs")
    # The requesting device: information if it is new, a client ID if it is known.
    information = models.JSONField("device information", null=True)
    client_id = models.CharField("client ID", max_length=128, null=True)  # noqa: DJ001 - absent and empty differ
    correlation_id = models.CharField("correlation ID", max_length=128)
    username_hash = models.BinaryField(max_length=32, null=True, editable=False)  # for the device
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "token_hash"], name="one_choice_of_a_hash")]

    def __str__(self) -> str:
        return f"choice of an account {self.pk}"


class RevokedAccessToken(TenantScoped):
    """A single revoked access token (RFC 7009), kept until the token expires."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    jti = models.CharField(max_length=32)
    revoked_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "jti"], name="one_revocation_of_an_access_token"),
        ]

    def __str__(self) -> str:
        return self.jti
