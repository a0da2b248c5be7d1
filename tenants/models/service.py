"""Services: the strategies that a tenant offers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Self

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.db import models, transaction
from simple_history.models import HistoricalRecords

from providers.contract import Strategy
from providers.registry import strategies
from tenants.models.configuration import ConfigurationModel
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped
from tenants.secrets import settings as secret_settings
from tenants.secrets.encryption import DecryptionFailed
from tenants.secrets.settings import (
    NOTHING_STORED,
    UNDECRYPTABLE,
    changed_destinations,
    is_placeholder,
    new_placeholder,
    secret_names,
    select_secrets,
)
from tenants.services.settings import clean_settings, clean_valid_settings

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
        loaded = self.original_value("tenant_id"), self.original_value("strategy")
        if not self._state.adding and (self.tenant_id, self.strategy) != loaded:
            raise ValidationError("Tenant and strategy cannot be changed: create a new service.")
        if not self.enabled and not self._state.adding and self.settings == self.original_value("settings"):
            return
        strategy = self.strategy_or_none()
        if strategy is None:
            raise ValidationError({"strategy": f"The strategy {self.strategy!r} is not installed."})
        self.settings = self.clean_settings(strategy, self.settings, enabled=self.enabled)

    def clean_settings(self, strategy: Strategy, settings: Any, *, enabled: bool) -> dict[str, Any]:
        """Return `settings` with defaults filled in, validated by the form of the strategy.

        Placeholders are kept. Raises ValidationError, whose `settings` messages begin with the name of the
        setting; also if a stored secret would be sent to a new destination.
        """
        secrets = select_secrets(strategy, settings)
        placeholders = {name: value for name, value in secrets.items() if is_placeholder(value)}
        # A disabled service may keep secrets that cannot be decrypted.
        lenient = not enabled and placeholders == secrets
        plain = self.with_secrets(settings, lenient=lenient)
        unread = [name for name, value in select_secrets(strategy, plain).items() if is_placeholder(value)]
        stored, cleaned = clean_settings(strategy, plain, unread=unread)
        before = select_secrets(strategy, self.original_value("settings"))
        # A setting that became a secret after it was stored has no placeholder.
        kept = [name for name, value in secrets.items() if name in placeholders or value == before.get(name)]
        if problems := self.secrets_to_reenter(strategy, kept, cleaned):
            raise ValidationError({"settings": [f"{name}: {reason}" for name, reason in problems.items()]})
        return stored | placeholders

    def secrets_to_reenter(
        self, strategy: Strategy, kept: Iterable[str], cleaned: Mapping[str, Any]
    ) -> dict[str, str]:
        """Return which of the `kept` secrets must be entered again for the `cleaned` settings.

        The values are the reasons, by the name of the setting.
        """
        stored = self.original_value("settings")
        before = select_secrets(strategy, stored)
        reasons = {name: NOTHING_STORED for name in kept if name not in before}
        if kept_and_stored := [name for name in kept if name in before]:
            old = clean_valid_settings(strategy, self.with_secrets(stored, lenient=True))
            reasons |= changed_destinations(strategy, kept_and_stored, old, cleaned)
        return reasons

    def secrets(self) -> dict[str, str]:
        """Return the decrypted secrets by setting name. Raises `encryption.DecryptionFailed`."""
        return secret_settings.decrypt(self.sealed_secrets, self.tenant_id, self.strategy)

    def settings_with_secrets(self) -> Any:
        """Return the settings with the secrets in plain text. Raises ValidationError.

        Unsaved settings are validated first, so that they get no secret that `save` would refuse to keep.
        """
        strategy = self.strategy_or_none()
        if strategy is not None and self.settings != self.original_value("settings"):
            self.clean_settings(strategy, self.settings, enabled=True)
        return self.with_secrets(self.settings)

    def with_secrets(self, settings: Any, *, lenient: bool = False) -> Any:
        """Return `settings` with each placeholder replaced by its stored secret.

        Raises ValidationError if a secret is missing or cannot be decrypted; if `lenient`, keeps the
        placeholder instead.
        """
        placeholders = [
            name
            for name, value in select_secrets(self.strategy_or_none(), settings).items()
            if is_placeholder(value)
        ]
        if not placeholders:
            return settings
        reason, secrets = NOTHING_STORED, {}
        try:
            secrets = self.secrets()
        except DecryptionFailed:
            reason = UNDECRYPTABLE
        missing = [name for name in placeholders if name not in secrets]
        if missing and not lenient:
            raise ValidationError({"settings": [f"{name}: {reason}" for name in missing]})
        return settings | {name: secrets[name] for name in placeholders if name not in missing}

    def with_placeholders(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return `settings` with the stored placeholder in place of each placeholder or unchanged secret."""
        entered = select_secrets(self.strategy_or_none(), settings)
        try:
            secrets = self.secrets()
        except DecryptionFailed:
            secrets = {}
        return settings | {
            name: placeholder
            for name, placeholder in select_secrets(
                self.strategy_or_none(), self.original_value("settings")
            ).items()
            if name in entered and (is_placeholder(entered[name]) or entered[name] == secrets.get(name))
        }

    def reencrypt(self) -> None:
        """Encrypt the secrets with the newest encryption key. Raises `encryption.DecryptionFailed`."""
        with transaction.atomic():
            self._tenant_queryset().select_for_update(no_key=True).first()
            stored = type(self).unscoped.get(pk=self.pk)
            encrypted = secret_settings.encrypt(stored.secrets(), self.tenant_id, self.strategy)
            type(self).unscoped.filter(pk=self.pk).update(sealed_secrets=encrypted)

    def strategy_or_none(self) -> Strategy | None:
        return strategies().get(self.strategy)

    def _save(self, *args: Any, validate: bool, **kwargs: Any) -> None:
        if "settings" in (kwargs.get("update_fields") or ()):
            kwargs["update_fields"] = [*kwargs["update_fields"], "sealed_secrets"]
        super()._save(*args, validate=validate, **kwargs)

    def _merge_concurrent(self, unwritten: set[str]) -> Self:
        """Merge each secret separately: one that was not entered here may have been changed concurrently."""
        stored = super()._merge_concurrent(unwritten)
        if "settings" in self.changed_fields and isinstance(self.settings, dict):
            strategy = self.strategy_or_none()
            ours = select_secrets(strategy, self.settings)
            original = select_secrets(strategy, self.original_value("settings"))
            current = select_secrets(strategy, stored.settings)
            self.settings = self.settings | {
                name: current.get(name)
                for name in secret_names(strategy)
                if ours.get(name) == original.get(name)
            }
        # Validate against the current row: immutable fields, and where secrets are sent.
        self._loaded_values = self._loaded_values | {
            name: stored.original_value(name) for name in ("tenant_id", "strategy", "settings")
        }
        return stored

    def _prepare_fields(self, unwritten: set[str]) -> None:
        """Encrypt the secrets that were entered and replace them with placeholders."""
        if "settings" in unwritten or (strategy := self.strategy_or_none()) is None:
            return
        secrets = select_secrets(strategy, self.settings)
        unchanged = not self._state.adding and "settings" not in self.changed_fields
        if unchanged and all(map(is_placeholder, secrets.values())):
            return
        # A secret that is entered again unchanged keeps its placeholder.
        self.settings = self.with_placeholders(self.settings)
        secrets = select_secrets(strategy, self.settings)
        entered = {name: value for name, value in secrets.items() if not is_placeholder(value)}
        try:
            stored = self.secrets()
        except DecryptionFailed:
            if not entered and secrets:  # only a disabled service passes validation with such secrets
                return
            stored = {}
        if entered or stored.keys() != secrets.keys() or not secrets:
            kept = {name: secret for name, secret in stored.items() if name in secrets}
            self.sealed_secrets = secret_settings.encrypt(kept | entered, self.tenant_id, self.strategy)
            self.settings = self.settings | {name: new_placeholder() for name in entered}
