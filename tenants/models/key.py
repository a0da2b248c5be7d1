"""The keys whose tokens AGS accepts."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Now
from simple_history.models import HistoricalRecords

from providers.contract import KeyKind
from providers.jose import HMAC_BYTES, KID, PUBLIC_KEY_TYPES
from tenants.models.configuration import ConfigurationModel
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import encryption, key_material

_KEY_ID = RegexValidator(rf"\A{KID.pattern}\Z", "1 to 128 letters, digits, '.', '_', ':' or '-'.")


ALGORITHMS = (*HMAC_BYTES, *PUBLIC_KEY_TYPES)

_IS_PUBLIC = models.Q(algorithm__in=[*PUBLIC_KEY_TYPES])


class KeyState(models.TextChoices):
    STAGED = "staged", "Staged: not accepted yet"
    ACTIVE = "active", "Active: accepted"
    RETIRING = "retiring", "Retiring: still accepted, to be revoked"
    REVOKED = "revoked", "Revoked: never accepted again"


IN_FORCE = (KeyState.ACTIVE, KeyState.RETIRING)


class Key(TenantScoped, ConfigurationModel):
    """A shared secret or public key of a tenant, which signs tokens. Immutable: rotation adds a new key."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="keys")
    kid = models.CharField(
        "key ID", max_length=128, validators=[_KEY_ID], help_text="The kid in the header of its tokens."
    )
    algorithm = models.CharField(max_length=5, choices=[(name, name) for name in ALGORITHMS], default="HS256")
    state = models.CharField(max_length=8, choices=KeyState, default=KeyState.STAGED)
    not_before = models.DateTimeField(null=True, blank=True, help_text="Not accepted before this time.")
    not_after = models.DateTimeField(null=True, blank=True, help_text="Not accepted from this time on.")
    sealed_secret = models.BinaryField(editable=False)
    public_key = models.TextField(default="", db_default="", blank=True, editable=False)
    revoked_before = models.DateTimeField(null=True, editable=False)
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    history = HistoricalRecords(excluded_fields=["sealed_secret"])

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kid"], name="one_key_of_a_kid"),
            models.CheckConstraint(
                name="secret_or_public_key",
                condition=models.Q(_IS_PUBLIC, sealed_secret=b"") & ~models.Q(public_key="")
                | models.Q(~_IS_PUBLIC, public_key="") & ~models.Q(sealed_secret=b""),
            ),
        ]

    def __str__(self) -> str:
        return self.kid

    def clean(self) -> None:
        in_order = not (self.not_before and self.not_after) or self.not_before < self.not_after
        # Other errors must not prevent a revocation.
        if not in_order and self.state != KeyState.REVOKED:
            raise ValidationError({"not_after": "This must be later than not before."})
        if self._state.adding:
            if not (self.public_key if self.kind is KeyKind.PUBLIC_KEY else self.sealed_secret):
                raise ValidationError(f"A key needs a {self.kind.value}.")
            return
        stored = Key.unscoped.get(pk=self.pk)
        if self.immutable_values() != stored.immutable_values():
            raise ValidationError(
                "Tenant, kid, algorithm, secret and public key cannot be changed: create a new key to rotate."
            )
        if stored.state == KeyState.REVOKED and self.state != KeyState.REVOKED:
            raise ValidationError({"state": "A revoked key cannot be reactivated: create a new one."})

    @property
    def kind(self) -> KeyKind:
        return KeyKind.PUBLIC_KEY if self.algorithm in PUBLIC_KEY_TYPES else KeyKind.SHARED_SECRET

    def immutable_values(self) -> tuple[str, str, str, bytes, str]:
        return (self.tenant_id, self.kid, self.algorithm, bytes(self.sealed_secret), self.public_key)

    def set_secret(self, secret: bytes) -> None:
        """Validate and encrypt the secret of a new key whose tenant, kid and algorithm are set.

        Raises ValidationError.
        """
        key_material.validate(secret, self.algorithm)
        self.sealed_secret = encryption.encrypt(secret, self._row_id())

    def set_public_key(self, text: str) -> None:
        """Validate and set the public key of a new key whose kid and algorithm are set.

        `text`: a public key or certificate in PEM, or a JWK. Raises ValidationError.
        """
        self.public_key = key_material.normalize_public_key(text, self.kid, self.algorithm)

    def material(self) -> Any:
        """Return the secret bytes or the public key.

        Raises `encryption.DecryptionFailed`, and ValueError for a public key that AGS has not stored.
        """
        return key_material.load_public_key(self.public_key) if self.public_key else self.secret()

    def secret(self) -> bytes:
        """Return the decrypted secret. Raises `encryption.DecryptionFailed`."""
        return encryption.decrypt(bytes(self.sealed_secret), self._row_id())

    def reencrypt(self) -> None:
        """Encrypt the secret with the newest encryption key. Raises `encryption.DecryptionFailed`."""
        encrypted = encryption.encrypt(self.secret(), self._row_id())
        self._store_reencrypted(sealed_secret=encrypted)

    def _row_id(self) -> tuple[str, str, str]:
        return ("key", self.tenant_id, self.kid)
