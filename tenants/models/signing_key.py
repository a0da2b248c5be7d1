"""The keys with which AGS signs the access tokens of a tenant."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from simple_history.models import HistoricalRecords

from providers.jose import public_jwk
from tenants.models.configuration import ConfigurationModel
from tenants.models.key import KeyState
from tenants.models.tenant import Algorithm, Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import encryption, key_material
from tenants.times import get_database_time

PUBLICATION_LEAD_TIME = timedelta(minutes=10)
"""How long a key is published before it signs: twice the time for which verifiers may cache the JWKS."""

IS_STANDBY = models.Q(state=KeyState.STAGED, algorithm=Algorithm.ES256)
"""The condition of the key that signs at once if the active key of a tenant with ES256 is revoked."""

RETIREMENT_MARGIN = timedelta(minutes=1)
"""Added to the time for which a key is retiring: allows for stale snapshots and clock skew."""


class SigningKey(TenantScoped, ConfigurationModel):
    """A key with which AGS signs the access tokens of a tenant. Its key material is immutable.

    It signs while active, and is published while staged, active or retiring.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="signing_keys")
    kid = models.CharField("key ID", max_length=128)
    algorithm = models.CharField(max_length=5, choices=Algorithm)
    state = models.CharField(max_length=8, choices=KeyState, default=KeyState.STAGED)
    sealed_secret = models.BinaryField(editable=False)
    # The public key as a JWK (RFC 7517); empty for HS256.
    public_jwk = models.JSONField(default=dict, blank=True)
    published_at = models.DateTimeField(default=timezone.now, editable=False)
    needed_until = models.DateTimeField(
        null=True, editable=False, help_text="When the last token that it signed expires."
    )

    history = HistoricalRecords(excluded_fields=["sealed_secret"])

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "kid"], name="one_signing_key_of_a_kid"),
            models.UniqueConstraint(
                fields=["tenant"], condition=models.Q(state="active"), name="one_active_signing_key"
            ),
        ]

    def __str__(self) -> str:
        return self.kid

    def clean(self) -> None:
        if self.state == KeyState.RETIRING and self.needed_until is None:
            raise ValidationError({"needed_until": "A retiring key needs an end time."})
        if self._state.adding:
            return
        stored = type(self).unscoped.get(pk=self.pk)
        if self.immutable_values() != stored.immutable_values():
            raise ValidationError("A signing key cannot be changed: create a new key to rotate.")
        if stored.state == KeyState.REVOKED and self.state != KeyState.REVOKED:
            raise ValidationError({"state": "A revoked key cannot be reactivated."})

    def immutable_values(self) -> tuple[str, str, str, bytes, Any]:
        return (self.tenant_id, self.kid, self.algorithm, bytes(self.sealed_secret), self.public_jwk)

    @classmethod
    def generate(
        cls, tenant: Tenant, *, state: str = KeyState.STAGED, secret: bytes | None = None
    ) -> SigningKey:
        """Return a new, unsaved key for the signing algorithm of the tenant.

        `secret`: the HS256 secret of an existing platform; without it, one is generated.
        Raises ValidationError.
        """
        key = cls(
            tenant=tenant,
            kid=str(uuid4()),
            algorithm=tenant.signing_algorithm,
            state=state,
            published_at=get_database_time(),
        )
        if key.algorithm == Algorithm.HS256:
            secret = secrets.token_bytes(32) if secret is None else secret
            key_material.validate(secret, key.algorithm)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
            secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            key.public_jwk = public_jwk(private.public_key(), key.kid)
        key.sealed_secret = encryption.encrypt(secret, key._row_id())
        return key

    @classmethod
    def publish_standby(cls, tenant: Tenant) -> None:
        """Publish a key that can sign at once if the active key is revoked, unless there is one.

        A disabled tenant gets none, because verifiers cannot fetch it; nor does one with HS256, because the
        secret has to be given to the platform. Call it in a transaction that has locked the tenant.
        """
        if tenant.needs_standby() and not cls.objects.for_tenant(tenant).filter(IS_STANDBY).exists():
            cls.generate(tenant).save()

    def secret(self) -> Any:
        """Return the secret bytes (HS256) or the private key (ES256).

        Raises `encryption.DecryptionFailed`.
        """
        secret = encryption.decrypt(bytes(self.sealed_secret), self._row_id())
        return secret if self.algorithm == Algorithm.HS256 else load_der_private_key(secret, None)

    def may_sign_at(self) -> datetime:
        """Return the time by which the cached JWKS of every verifier contains this key."""
        return self.published_at + PUBLICATION_LEAD_TIME

    def reencrypt(self) -> None:
        """Encrypt the secret with the newest encryption key. Raises `encryption.DecryptionFailed`."""
        secret = encryption.decrypt(bytes(self.sealed_secret), self._row_id())
        encrypted = encryption.encrypt(secret, self._row_id())
        self._store_reencrypted(sealed_secret=encrypted)

    def _row_id(self) -> tuple[str, str, str]:
        return ("signing key", self.tenant_id, self.kid)
