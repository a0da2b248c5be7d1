"""A secret that a tenant signs with."""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now
from simple_history.models import HistoricalRecords

from providers.jose import HMAC_BYTES, KID
from tenants.models.configuration import Configuration
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import encryption, key_material

_KEY_ID = RegexValidator(rf"\A{KID.pattern}\Z", "1 to 128 letters, digits, '.', '_', ':' or '-'.")


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
    revoked_before = models.DateTimeField(null=True, editable=False)
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
        revived = self.state != KeyState.REVOKED or (
            # Revoked by another hand since it was read: whoever changes it believes that it is not.
            "state" not in self.changed and self.original_value("state") != KeyState.REVOKED
        )
        if stored.state == KeyState.REVOKED and revived:
            raise ValidationError({"state": "A revoked key stays revoked: make a new one."})

    def fixed(self) -> tuple[str, str, str, bytes]:
        """What makes this key this key."""
        return (self.tenant_id, self.kid, self.algorithm, bytes(self.sealed_secret))

    def set_secret(self, secret: bytes) -> None:
        """Check and seal the secret of a new key whose tenant, kid and algorithm are set.

        Raises ValidationError.
        """
        key_material.check(secret, self.algorithm)
        self.sealed_secret = encryption.encrypt(secret, self._row())

    def secret(self) -> bytes:
        """Return the secret in the clear. Raises `encryption.DecryptionFailed`."""
        return encryption.decrypt(bytes(self.sealed_secret), self._row())

    def reencrypt(self) -> None:
        """Encrypt the same secret under the newest encryption key. Raises `encryption.DecryptionFailed`."""
        sealed = encryption.encrypt(self.secret(), self._row())
        type(self).unscoped.filter(pk=self.pk).update(sealed_secret=sealed)

    def _row(self) -> tuple[str, str, str]:
        return ("key", self.tenant_id, self.kid)
