"""Services: the strategies that a tenant offers."""

import re
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.db import models, transaction
from simple_history.models import HistoricalRecords

from providers.registry import strategies
from tenants.models.configuration import ConfigurationModel
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import service_secrets
from tenants.secrets.encryption import DecryptionFailed
from tenants.services.settings import StoredSettings

# Printable ASCII that needs no quoting in a header. No comma: repeated headers are joined with commas.
SERVICE_NAME = re.compile(r"\A[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?\Z")
_SERVICE_NAME = RegexValidator(SERVICE_NAME, "Printable ASCII without a comma, and no space at either end.")


class Service(TenantScoped, ConfigurationModel):
    """A strategy that a tenant offers under a public name, with its settings.

    `save` moves secrets from `settings` to `sealed_secrets`, encrypted, and leaves placeholders.
    """

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="services")
    name = models.CharField(
        max_length=128,
        validators=[_SERVICE_NAME],
        help_text="The authServiceName in discovery, which clients send back as x-auth-service-id.",
    )
    strategy = models.CharField(max_length=63, help_text="How credentials are verified.")
    display_name = models.CharField(max_length=200, help_text="Name shown to subscribers.")
    logo = models.URLField(
        max_length=500, blank=True, validators=[URLValidator(["https"])], help_text="An https URL."
    )
    enabled = models.BooleanField(default=False, help_text="Off: not listed in discovery, and rejected.")
    settings = models.JSONField(default=dict, blank=True)
    sealed_secrets = models.BinaryField(null=True, editable=False)
    revoked_before = models.DateTimeField(null=True, editable=False)

    derived_fields = {"settings": "sealed_secrets"}
    history = HistoricalRecords(excluded_fields=["sealed_secrets"])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_service_of_a_name")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Check that the strategy is installed and its form accepts the settings.

        The unchanged settings of a disabled service are not checked, so that it can be edited even if its
        provider has been removed.
        """
        if loaded := self.loaded_values:
            if (self.tenant_id, self.strategy) != (loaded["tenant_id"], loaded["strategy"]):
                raise ValidationError("Tenant and strategy cannot be changed: create a new service.")
            if not self.enabled and self.settings == loaded["settings"]:
                return
        self.settings = self.stored_settings().clean(self.settings, enabled=self.enabled)

    def secrets(self) -> dict[str, str]:
        """Return the decrypted secrets by setting name. Raises `encryption.DecryptionFailed`."""
        return service_secrets.decrypt(self.sealed_secrets, self.tenant_id, self.strategy)

    def stored_settings(self) -> StoredSettings:
        """Return the settings that the row was loaded with."""
        try:
            secrets = self.secrets()
        except DecryptionFailed:
            secrets = None
        return StoredSettings(self.strategy, self.loaded_values.get("settings"), secrets)

    def settings_with_secrets(self) -> Any:
        """Return the settings with the secrets in plain text. Raises ValidationError.

        Unsaved settings are validated first, so that they get no secret that `save` would refuse to keep.
        """
        stored = self.stored_settings()
        if self.settings != stored.values:
            stored.clean(self.settings, enabled=True)
        return stored.in_plain_text(self.settings)

    def reencrypt(self) -> None:
        """Encrypt the secrets with the newest encryption key. Raises `encryption.DecryptionFailed`."""
        with transaction.atomic():
            self._tenant_queryset().select_for_update(no_key=True).first()
            stored = type(self).unscoped.get(pk=self.pk)
            encrypted = service_secrets.encrypt(stored.secrets(), self.tenant_id, self.strategy)
            self._store_reencrypted(sealed_secrets=encrypted)

    def _prepare_fields(self, unwritten: set[str]) -> None:
        """Encrypt the secrets that were entered and replace them with placeholders."""
        if (
            "settings" in unwritten
            or self.strategy not in strategies()
            or not isinstance(self.settings, dict)
        ):
            return  # nothing to encrypt, or the unchanged settings of a disabled service
        stored = self.stored_settings()
        new = stored.replace(self.settings)
        self.settings = new.values
        if new.secrets is not None and new.secrets != stored.secrets:
            self.sealed_secrets = service_secrets.encrypt(new.secrets, self.tenant_id, self.strategy)
