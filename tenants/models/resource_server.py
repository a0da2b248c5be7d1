"""A service of the operator that asks AGS about access tokens."""

from __future__ import annotations

import hashlib
import secrets

from django.db import models
from simple_history.models import HistoricalRecords

from tenants.models.configuration import Configuration
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped

SEPARATOR = "~"
"""Between the tenant and the rest of a client ID, so that the tenant is known from it; in no tenant ID."""


class ResourceServer(TenantScoped, Configuration):
    """Authenticates with a client ID and a secret (RFC 6749, section 2.3.1). The secret is shown once."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="resource_servers")
    client_id = models.CharField("client ID", max_length=128, editable=False)
    name = models.CharField(max_length=200, help_text="What a person calls it.")
    enabled = models.BooleanField(default=True)
    # The secret has 256 random bits: a plain hash cannot be searched.
    secret_hash = models.BinaryField(max_length=32, editable=False)

    history = HistoricalRecords(excluded_fields=["secret_hash"])

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "client_id"], name="one_resource_server_of_a_client_id")
        ]

    def __str__(self) -> str:
        return self.client_id

    def set_credentials(self) -> str:
        """Give a new one its client ID and its secret, and return the secret."""
        secret = secrets.token_urlsafe(32)
        self.client_id = f"{self.tenant_id}{SEPARATOR}{secrets.token_hex(8)}"
        self.secret_hash = hash_of_secret(secret)
        return secret


def hash_of_secret(secret: str) -> bytes:
    """Return what is stored of a client secret."""
    return hashlib.sha256(secret.encode()).digest()
