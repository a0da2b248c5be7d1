"""Who the operators are, what each switched on, and which keys each is trusted by."""

from __future__ import annotations

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.db import models, transaction
from django.db.models.functions import Now
from simple_history.models import HistoricalRecords

from providers.jose import HMAC_BYTES, KID
from providers.registry import strategies
from tenants import encryption, material
from tenants.scoping import TenantScoped
from tenants.settings_form import validated

TENANT_ID = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
# What fits a header line as it is; no comma, for that is how a header sent twice arrives.
SERVICE_NAME = re.compile(r"\A[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?\Z")

_TENANT_ID = RegexValidator(TENANT_ID, "1 to 64 letters, digits, '.', '_' or '-', a letter or digit first.")
_SERVICE_NAME = RegexValidator(SERVICE_NAME, "Printable ASCII without a comma, and no space at either end.")
_KEY_ID = RegexValidator(rf"\A{KID.pattern}\Z", "1 to 128 letters, digits, '.', '_', ':' or '-'.")


class Configuration(models.Model):
    """Base of the three models that requests are judged by: every way in is validated, and is noticed."""

    class Meta:
        abstract = True

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Validate what is stored, store it, and give the tenant a new version. Raises ValidationError."""
        tenant = self._tenant()
        # Changes of one tenant happen one after the other: what is validated is what is there. A key that is
        # revoked meanwhile is not revived by a form that was opened before.
        tenant.select_for_update().first()
        only = kwargs.get("update_fields")
        self.full_clean(exclude=() if only is None else {f.name for f in self._meta.fields} - set(only))
        super().save(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Remove, and give the tenant a new version."""
        tenant = self._tenant()
        tenant.select_for_update().first()
        done = super().delete(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)
        return done

    def _tenant(self) -> models.QuerySet[Tenant]:
        return Tenant.objects.filter(pk=self.pk if isinstance(self, Tenant) else self.tenant_id)  # type: ignore[attr-defined]


class Tenant(Configuration):
    """An operator, known by its `nv-tenant-id`."""

    id = models.CharField(
        "tenant ID",
        primary_key=True,
        max_length=64,
        validators=[_TENANT_ID],
        help_text="The nv-tenant-id header.",
    )
    name = models.CharField(max_length=200)
    enabled = models.BooleanField(default=True, help_text="Off: every request of this operator is refused.")
    # Counts every change of the tenant, its services and its keys. What a request read at one version is
    # granted at that version only.
    version = models.PositiveBigIntegerField(default=1, editable=False)

    history = HistoricalRecords(excluded_fields=["version"])

    class Meta:
        permissions = [("all_tenants", "Can work with every tenant, assigned or not")]

    def __str__(self) -> str:
        return self.id

    @transaction.atomic
    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store everything but the version, which only ever counts up in the database."""
        if not self._state.adding and kwargs.get("update_fields") is None:
            kwargs["update_fields"] = ["name", "enabled"]
        super().save(*args, **kwargs)


class Service(TenantScoped, Configuration):
    """A strategy as one tenant offers it, under a public name, with its settings."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="services")
    name = models.CharField(
        max_length=128,
        validators=[_SERVICE_NAME],
        help_text="The authServiceName of discovery, sent back as x-auth-service-id.",
    )
    strategy = models.CharField(max_length=63, help_text="How it proves who somebody is.")
    display_name = models.CharField(max_length=200, help_text="What a person reads.")
    logo = models.URLField(
        max_length=500, blank=True, validators=[URLValidator(["https"])], help_text="An https address."
    )
    enabled = models.BooleanField(default=False, help_text="Off: not in discovery, and refused.")
    settings = models.JSONField(default=dict, blank=True)

    history = HistoricalRecords()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_service_of_a_name")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Demand a known strategy and settings that its form accepts.

        A disabled service is let through: one whose provider is gone must still be editable.
        """
        if not self.enabled and not self._state.adding:
            return
        strategy = strategies().get(self.strategy)
        if strategy is None:
            raise ValidationError({"strategy": f"There is no strategy {self.strategy!r} here."})
        self.settings, _ = validated(strategy, self.settings)


class KeyState(models.TextChoices):
    """The life of a key, in order."""

    STAGED = "staged", "Staged: known, not yet accepted"
    ACTIVE = "active", "Active: accepted"
    RETIRING = "retiring", "Retiring: still accepted, on its way out"
    REVOKED = "revoked", "Revoked: never accepted again"


IN_FORCE = (KeyState.ACTIVE, KeyState.RETIRING)


class Key(TenantScoped, Configuration):
    """A secret that a tenant signs with, known by its `kid`. It never changes: rotation is a new key."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="keys")
    kid = models.CharField(
        "key ID", max_length=128, validators=[_KEY_ID], help_text="The kid that tokens name."
    )
    algorithm = models.CharField(max_length=5, choices=[(name, name) for name in HMAC_BYTES], default="HS256")
    state = models.CharField(max_length=8, choices=KeyState, default=KeyState.STAGED)
    not_before = models.DateTimeField(null=True, blank=True, help_text="Refused before this moment.")
    not_after = models.DateTimeField(null=True, blank=True, help_text="Refused from this moment on.")
    sealed_secret = models.BinaryField(editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    history = HistoricalRecords(excluded_fields=["sealed_secret"])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "kid"], name="one_key_of_a_kid")]

    def __str__(self) -> str:
        return self.kid

    def clean(self) -> None:
        """Demand sound material, dates in order, and no way back from revocation."""
        in_order = not (self.not_before and self.not_after) or self.not_before < self.not_after
        # Revoking is never refused, whatever else is wrong with the row.
        if not in_order and self.state != KeyState.REVOKED:
            raise ValidationError({"not_after": "This must be later than not before."})
        if self._state.adding:
            if not self.sealed_secret:
                raise ValidationError("A key needs a secret.")
            return
        stored = Key.unscoped.get(pk=self.pk)
        if self.fixed() != stored.fixed():
            raise ValidationError("Tenant, kid, algorithm and secret never change: rotation is a new key.")
        if stored.state == KeyState.REVOKED and self.state != KeyState.REVOKED:
            raise ValidationError({"state": "A revoked key stays revoked: make a new one."})

    def fixed(self) -> tuple[str, str, str, bytes]:
        """What makes this key this key."""
        return (self.tenant_id, self.kid, self.algorithm, bytes(self.sealed_secret))

    def set_secret(self, secret: bytes) -> None:
        """Check and seal the secret of a new key whose tenant, kid and algorithm are set.

        Raises ValidationError.
        """
        material.check(secret, self.algorithm)
        self.sealed_secret = encryption.seal(secret, self._row())

    def secret(self) -> bytes:
        """Return the secret in the clear. Raises `encryption.Unsealable`."""
        return encryption.unseal(bytes(self.sealed_secret), self._row())

    def reseal(self) -> None:
        """Encrypt the same secret under the newest encryption key. Raises `encryption.Unsealable`."""
        sealed = encryption.seal(self.secret(), self._row())
        type(self).unscoped.filter(pk=self.pk).update(sealed_secret=sealed)

    def _row(self) -> tuple[str, str, str]:
        return ("key", self.tenant_id, self.kid)


class Assignment(TenantScoped):
    """A tenant that a person of the staff may work with: the pages show nothing of any other."""

    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="assignments")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="assignments")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "user"], name="one_assignment_of_a_user")]

    def __str__(self) -> str:
        return f"{self.user} for {self.tenant_id}"


def tenants_of(user: Any) -> models.QuerySet[Tenant]:
    """Return the tenants that this person of the staff may work with."""
    if user.has_perm("tenants.all_tenants"):
        return Tenant.objects.all()
    return Tenant.objects.filter(assignments__user=user)
