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
    redeemed_at = models.DateTimeField(null=True)
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


class AccountStatus(models.TextChoices):
    """Whether a subscriber may sign on, and stay signed on."""

    ACTIVE = "active", "Active"
    SUSPENDED = "suspended", "Suspended: refused until it is active again"
    CANCELLED = "cancelled", "Cancelled: refused for good"


class Account(TenantScoped):
    """A subscriber, as the operator names him. It exists from its first sign-on, or because staff made it."""

    # No index of its own: a planner without statistics takes it for the one below, and reads all accounts.
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    account_id = models.CharField("account ID", max_length=255)
    status = models.CharField(max_length=9, choices=AccountStatus, default=AccountStatus.ACTIVE)
    created_at = models.DateTimeField(db_default=Now(), editable=False)
    revoked_before = models.DateTimeField(null=True, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "account_id"], name="one_account_of_an_id"),
        ]

    def __str__(self) -> str:
        return self.account_id


class DeviceStatus(models.TextChoices):
    """Whether a device may sign on, and stay signed on. Only enabled ones count for the limit."""

    ENABLED = "enabled", "Enabled"
    DISABLED = "disabled", "Disabled: refused until it is enabled again"
    DELETED = "deleted", "Deleted: its client signs on afresh"


class Device(TenantScoped):
    """A device of an account, known to its client as `client_id`, and the sign-on that it has.

    A device has one sign-on at a time: a later one takes its place. `sign_on` names it in every token that it
    gives rise to. Of a refresh token nothing is stored but its number, `generation`.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    account = models.ForeignKey(Account, models.PROTECT, related_name="devices", db_index=False)
    client_id = models.CharField("client ID", max_length=32, editable=False)
    status = models.CharField(max_length=8, choices=DeviceStatus, default=DeviceStatus.ENABLED)
    information = models.JSONField("device information")
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    # The sign-on
    service = models.ForeignKey(
        Service, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        Key, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    sign_on = models.CharField(max_length=32, editable=False)
    correlation_id = models.CharField("correlation ID", max_length=128)
    # When the proof behind it was accepted: what is revoked up to a moment, is judged by this one.
    proven_at = models.DateTimeField()
    signed_on_at = models.DateTimeField()
    fixed_expires_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True)
    end_reason = models.CharField(max_length=32, blank=True)
    generation = models.PositiveIntegerField(default=0)
    refresh_expires_at = models.DateTimeField()
    # The refresh tokens that were used lately: [[generation, seconds since the epoch], …], newest last.
    # One missing in between counts as used with the next: the database was behind, and has not seen it.
    used = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "client_id"], name="one_device_of_a_client_id"),
            models.UniqueConstraint(fields=["tenant", "sign_on"], name="one_device_of_a_sign_on"),
        ]
        indexes = [
            # Counts the enabled devices of an account, and lists all of them.
            models.Index(fields=["tenant", "account", "status"], name="devices_of_an_account"),
            # Leads the purge to those that are deleted, past the many that are not.
            models.Index(
                fields=["fixed_expires_at"],
                condition=models.Q(status=DeviceStatus.DELETED),
                name="deleted_devices",
            ),
        ]

    def __str__(self) -> str:
        return self.client_id


class AccountChoice(TenantScoped):
    """Proof that names several accounts, of which a subscriber may choose one, once, for one device.

    One row for the whole choice: its user account tokens are one secret, each with a place in `accounts`.
    Only a keyed hash of the secret is stored. Rows are written by `account_choice` and by nothing else.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    service = models.ForeignKey(
        Service, models.PROTECT, related_name="+", db_constraint=False, db_index=False
    )
    key = models.ForeignKey(
        Key, models.PROTECT, related_name="+", db_constraint=False, db_index=False, null=True
    )
    token_hash = models.BinaryField(max_length=32, editable=False)
    accounts = models.JSONField("account IDs")
    # The device that asked, as one of the two.
    information = models.JSONField("device information", null=True)
    client_id = models.CharField("client ID", max_length=128, null=True)  # noqa: DJ001 - absent and empty differ
    correlation_id = models.CharField("correlation ID", max_length=128)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)
    used_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "token_hash"], name="one_choice_of_a_hash"),
        ]

    def __str__(self) -> str:
        return f"choice of an account {self.pk}"


class RevokedAccessToken(TenantScoped):
    """An access token that was revoked by itself (RFC 7009), kept until it would have expired."""

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


class Lease(models.Model):
    """A task that one process does at a time, until the lease expires. Rows are written by `lease` alone."""

    name = models.CharField(max_length=32, primary_key=True)
    token = models.UUIDField(null=True)
    holder = models.CharField(max_length=128)
    acquired_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return self.name


class SecurityEvent(TenantScoped):
    """Something that points at a stolen token. One row for each token and kind, however often it happens."""

    class Kind(models.TextChoices):
        """What happened."""

        SESSION_TOKEN_REUSED = "session_token_reused", "A spent session token was presented again"
        REFRESH_TOKEN_REUSED = "refresh_token_reused", "A used refresh token was presented again"
        USER_ACCOUNT_TOKEN_REUSED = (
            "user_account_token_reused",
            "An account was chosen again, where one had been chosen already",
        )

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    kind = models.CharField(max_length=32, choices=Kind)
    # What it is about: the number of the session token or of the choice, or the sign-on.
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
