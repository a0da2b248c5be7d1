"""A key that AGS signs the access tokens of a tenant with."""

from __future__ import annotations

import base64
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

from tenants.models.configuration import Configuration
from tenants.models.key import KeyState
from tenants.models.tenant import Algorithm, Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import encryption, key_material

PUBLISHED_BEFORE = timedelta(minutes=10)
"""How long a key is published before it signs: twice as long as a verifier may keep a key set."""

MARGIN = timedelta(minutes=1)
"""For processes that learn of a change a moment late, and clocks that differ."""


class SigningKey(TenantScoped, Configuration):
    """Signs while active; published while staged, active or retiring. Its material never changes."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="signing_keys")
    kid = models.CharField("key ID", max_length=128)
    algorithm = models.CharField(max_length=5, choices=Algorithm)
    state = models.CharField(max_length=8, choices=KeyState, default=KeyState.STAGED)
    sealed_secret = models.BinaryField(editable=False)
    # The public half as a JWK (RFC 7517); empty where the secret is shared.
    public_jwk = models.JSONField(default=dict, blank=True)
    published_at = models.DateTimeField(default=timezone.now, editable=False)
    needed_until = models.DateTimeField(
        null=True, editable=False, help_text="When the last token that it signed has expired."
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
        """Demand that it stays this key, that what is revoked stays so, and an end for what is retiring."""
        if self.state == KeyState.RETIRING and self.needed_until is None:
            raise ValidationError({"needed_until": "A retiring key needs an end."})
        if self._state.adding:
            return
        stored = type(self).unscoped.get(pk=self.pk)
        if self.fixed() != stored.fixed():
            raise ValidationError("The material of a signing key never changes: rotation is a new key.")
        if stored.state == KeyState.REVOKED and self.state != KeyState.REVOKED:
            raise ValidationError({"state": "A revoked key stays revoked."})

    def fixed(self) -> tuple[str, str, str, bytes, Any]:
        """What makes this key this key."""
        return (self.tenant_id, self.kid, self.algorithm, bytes(self.sealed_secret), self.public_jwk)

    @classmethod
    def generate(
        cls, tenant: Tenant, *, state: str = KeyState.STAGED, secret: bytes | None = None
    ) -> SigningKey:
        """Return a new key of the tenant's algorithm, not stored yet.

        `secret` is what an existing platform verifies HS256 with. Raises ValidationError.
        """
        key = cls(tenant=tenant, kid=str(uuid4()), algorithm=tenant.signing_algorithm, state=state)
        if key.algorithm == Algorithm.HS256:
            secret = secrets.token_bytes(32) if secret is None else secret
            key_material.check(secret, key.algorithm)
        else:
            private = ec.generate_private_key(ec.SECP256R1())
            secret = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
            key.public_jwk = _jwk(private.public_key(), key.kid)
        key.sealed_secret = encryption.encrypt(secret, key._row())
        return key

    def secret(self) -> Any:
        """Return bytes for HS256, a private key for ES256. Raises `encryption.DecryptionFailed`."""
        secret = encryption.decrypt(bytes(self.sealed_secret), self._row())
        return secret if self.algorithm == Algorithm.HS256 else load_der_private_key(secret, None)

    def may_sign_at(self) -> datetime:
        """Return the moment from which every verifier knows it."""
        return self.published_at + PUBLISHED_BEFORE

    def reencrypt(self) -> None:
        """Encrypt the same secret under the newest encryption key. Raises `encryption.DecryptionFailed`."""
        secret = encryption.decrypt(bytes(self.sealed_secret), self._row())
        sealed = encryption.encrypt(secret, self._row())
        type(self).unscoped.filter(pk=self.pk).update(sealed_secret=sealed)

    def _row(self) -> tuple[str, str, str]:
        return ("signing key", self.tenant_id, self.kid)


def _jwk(public: ec.EllipticCurvePublicKey, kid: str) -> dict[str, str]:
    numbers = public.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "use": "sig",
        "alg": "ES256",
        "kid": kid,
        "x": _coordinate(numbers.x),
        "y": _coordinate(numbers.y),
    }


def _coordinate(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode("ascii")
