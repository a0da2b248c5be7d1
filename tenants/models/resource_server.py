"""Resource servers: the OAuth clients that introspect and revoke access tokens."""

import hashlib
import re
import secrets

from django.core.exceptions import ValidationError
from django.db import models
from simple_history.models import HistoricalRecords

from tenants.models.configuration import ConfigurationModel
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped

SEPARATOR = "~"
"""Separates the tenant ID from the rest of a client ID. No tenant ID contains it."""

_OWN_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SECRET = re.compile(r"[!-~]{43,256}")


class ResourceServer(TenantScoped, ConfigurationModel):
    """A server of the operator that introspects and revokes tokens (RFC 7662, RFC 7009)."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="resource_servers")
    client_id = models.CharField("client ID", max_length=128, editable=False)
    name = models.CharField(max_length=200, help_text="Name shown to staff.")
    enabled = models.BooleanField(default=True)
    # A plain SHA-256 is enough: the secret has 256 random bits.
    secret_hash = models.BinaryField(max_length=32, editable=False)

    history = HistoricalRecords(excluded_fields=["secret_hash"])

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["tenant", "client_id"], name="one_resource_server_of_a_client_id")
        ]

    def __str__(self) -> str:
        return self.client_id

    def set_credentials(self) -> str:
        """Generate the client ID and the secret of a new resource server, and return the secret."""
        secret = secrets.token_urlsafe(32)
        self.client_id = f"{self.tenant_id}{SEPARATOR}{secrets.token_hex(8)}"
        self.secret_hash = hash_client_secret(secret)
        return secret

    def import_credentials(self, client_id: str, secret: str) -> None:
        """Set the client ID and the secret of a new resource server. Raises ValidationError."""
        tenant_id, separator, own_part = client_id.partition(SEPARATOR)
        if tenant_id != self.tenant_id or not separator or not _OWN_PART.fullmatch(own_part):
            raise ValidationError(
                {
                    "client_id": f"Must be {self.tenant_id}{SEPARATOR}, then 1 to 63 letters, digits, '.', "
                    "'_' or '-', a letter or digit first."
                }
            )
        if not _SECRET.fullmatch(secret):
            # An attacker who reads its hash can guess a secret that a person has chosen.
            raise ValidationError(
                {
                    "secret": "Must be 43 to 256 printable ASCII characters without spaces; generate it from "
                    "32 random bytes."
                }
            )
        self.client_id = client_id
        self.secret_hash = hash_client_secret(secret)


def hash_client_secret(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
