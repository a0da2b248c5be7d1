"""A strategy as one tenant offers it."""

from __future__ import annotations

import re

from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator, URLValidator
from django.db import models
from simple_history.models import HistoricalRecords

from providers.registry import strategies
from tenants.models.configuration import Configuration
from tenants.models.tenant import Tenant
from tenants.scoping import TenantScoped
from tenants.settings_form import validated

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
    revoked_before = models.DateTimeField(null=True, editable=False)

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
