"""A strategy as one tenant offers it."""

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
from tenants.models.configuration import Configuration
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
    secrets_of,
)
from tenants.services.settings import clean_settings, clean_valid_settings

# What fits a header line as it is; no comma, for that is how a header sent twice arrives.
SERVICE_NAME = re.compile(r"\A[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?\Z")
_SERVICE_NAME = RegexValidator(SERVICE_NAME, "Printable ASCII without a comma, and no space at either end.")


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
    # The secrets among the settings. There, a mark stands for each.
    sealed_secrets = models.BinaryField(null=True, editable=False)
    revoked_before = models.DateTimeField(null=True, editable=False)

    history = HistoricalRecords(excluded_fields=["sealed_secrets"])

    class Meta:
        constraints = [models.UniqueConstraint(fields=["tenant", "name"], name="one_service_of_a_name")]

    def __str__(self) -> str:
        return self.name

    def clean(self) -> None:
        """Demand a known strategy and settings that its form accepts.

        A disabled service is let through with the settings that it has: one whose provider is gone must still
        be editable.
        """
        fixed = self.original_value("tenant_id"), self.original_value("strategy")
        if not self._state.adding and (self.tenant_id, self.strategy) != fixed:
            raise ValidationError("Tenant and strategy never change: make a new service.")
        if not self.enabled and not self._state.adding and self.settings == self.original_value("settings"):
            return
        strategy = self.strategy_or_none()
        if strategy is None:
            raise ValidationError({"strategy": f"There is no strategy {self.strategy!r} here."})
        self.settings = self.clean_settings(strategy, self.settings, enabled=self.enabled)

    def clean_settings(self, strategy: Strategy, settings: Any, *, enabled: bool) -> dict[str, Any]:
        """Return `settings` with the defaults filled in, once the form of the strategy accepts them.

        Marks stay marks. Raises ValidationError, whose `settings` messages name the setting; also where a
        secret is kept and would be sent elsewhere.
        """
        secrets = secrets_of(strategy, settings)
        marks = {name: value for name, value in secrets.items() if is_placeholder(value)}
        # What is switched off may stay as it is, even if nothing opens it any more.
        lenient = not enabled and marks == secrets
        clear = self.with_secrets(settings, lenient=lenient)
        unread = [name for name, value in secrets_of(strategy, clear).items() if is_placeholder(value)]
        stored, cleaned = clean_settings(strategy, clear, unread=unread)
        before = secrets_of(strategy, self.original_value("settings"))
        # One that was no secret when it was stored has no mark.
        kept = [name for name, value in secrets.items() if name in marks or value == before.get(name)]
        if problems := self.secrets_to_reenter(strategy, kept, cleaned):
            raise ValidationError({"settings": [f"{name}: {why}" for name, why in problems.items()]})
        return stored | marks

    def secrets_to_reenter(
        self, strategy: Strategy, kept: Iterable[str], cleaned: Mapping[str, Any]
    ) -> dict[str, str]:
        """Return which of the secrets that are kept must be entered again for these settings, and why."""
        stored = self.original_value("settings")
        before = secrets_of(strategy, stored)
        reasons = {name: NOTHING_STORED for name in kept if name not in before}
        if still := [name for name in kept if name in before]:
            old = clean_valid_settings(strategy, self.with_secrets(stored, lenient=True))
            reasons |= changed_destinations(strategy, still, old, cleaned)
        return reasons

    # Secrets among the settings: in the clear on their way in, until they are stored, and on their way out

    def secrets(self) -> dict[str, str]:
        """Return the stored secrets by the name of the setting. Raises `encryption.DecryptionFailed`."""
        return secret_settings.decrypt(self.sealed_secrets, self.tenant_id, self.strategy)

    def settings_with_secrets(self) -> Any:
        """Return the settings with the secrets in the clear. Raises ValidationError.

        Settings that are not stored yet get no secret that `save` would refuse to keep for them.
        """
        how = self.strategy_or_none()
        if how is not None and self.settings != self.original_value("settings"):
            self.clean_settings(how, self.settings, enabled=True)
        return self.with_secrets(self.settings)

    def with_secrets(self, settings: Any, *, lenient: bool = False) -> Any:
        """Return `settings` with the secret that is stored in place of each mark.

        Raises ValidationError where there is none, or none that opens. If `lenient`, the marks are left then.
        """
        marked = [
            name
            for name, value in secrets_of(self.strategy_or_none(), settings).items()
            if is_placeholder(value)
        ]
        if not marked:
            return settings
        why, secrets = NOTHING_STORED, {}
        try:
            secrets = self.secrets()
        except DecryptionFailed:
            why = UNDECRYPTABLE
        missing = [name for name in marked if name not in secrets]
        if missing and not lenient:
            raise ValidationError({"settings": [f"{name}: {why}" for name in missing]})
        return settings | {name: secrets[name] for name in marked if name not in missing}

    def with_placeholders(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return `settings` with the mark that is stored for each secret that is the same, or a mark."""
        given = secrets_of(self.strategy_or_none(), settings)
        try:
            secrets = self.secrets()
        except DecryptionFailed:
            secrets = {}
        return settings | {
            name: mark
            for name, mark in secrets_of(self.strategy_or_none(), self.original_value("settings")).items()
            if name in given and (is_placeholder(given[name]) or given[name] == secrets.get(name))
        }

    def reencrypt(self) -> None:
        """Encrypt the same secrets under the newest encryption key. Raises `encryption.DecryptionFailed`."""
        with transaction.atomic():
            self._tenant().select_for_update(no_key=True).first()
            stored = type(self).unscoped.get(pk=self.pk)
            sealed = secret_settings.encrypt(stored.secrets(), self.tenant_id, self.strategy)
            type(self).unscoped.filter(pk=self.pk).update(sealed_secrets=sealed)

    def strategy_or_none(self) -> Strategy | None:
        return strategies().get(self.strategy)

    def _store(self, *args: Any, validated: bool, **kwargs: Any) -> None:
        if "settings" in (kwargs.get("update_fields") or ()):
            kwargs["update_fields"] = [*kwargs["update_fields"], "sealed_secrets"]
        super()._store(*args, validated=validated, **kwargs)

    def _merge_concurrent(self, others: set[str]) -> Self:
        """Take over each secret by itself: one that was not entered here may have been changed elsewhere."""
        stored = super()._merge_concurrent(others)
        if "settings" in self.changed and isinstance(self.settings, dict):
            how = self.strategy_or_none()
            mine, was = secrets_of(how, self.settings), secrets_of(how, self.original_value("settings"))
            now = secrets_of(how, stored.settings)
            untouched = {name: now.get(name) for name in secret_names(how) if mine.get(name) == was.get(name)}
            self.settings = self.settings | untouched
        # What must stay, and where secrets are sent, is judged by the row as it is now.
        self._read = self._read | {
            name: stored.original_value(name) for name in ("tenant_id", "strategy", "settings")
        }
        return stored

    def _prepare_fields(self, others: set[str]) -> None:
        """Seal what was entered, and leave marks. What is sealed is never set otherwise."""
        if "settings" in others or (how := self.strategy_or_none()) is None:
            return
        given = secrets_of(how, self.settings)
        untouched = not self._state.adding and "settings" not in self.changed
        if untouched and all(map(is_placeholder, given.values())):
            return
        # The same secret, entered again, keeps its mark.
        self.settings = self.with_placeholders(self.settings)
        given = secrets_of(how, self.settings)
        entered = {name: value for name, value in given.items() if not is_placeholder(value)}
        try:
            texts = self.secrets()
        except DecryptionFailed:
            if not entered and given:  # it is disabled, or would have been refused
                return
            texts = {}
        if entered or texts.keys() != given.keys() or not given:
            kept = {name: text for name, text in texts.items() if name in given}
            self.sealed_secrets = secret_settings.encrypt(kept | entered, self.tenant_id, self.strategy)
            self.settings = self.settings | {name: new_placeholder() for name in entered}
