"""The forms of a service: tenant and strategy first, then the settings that the strategy declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminRadioSelectWidget

from providers.contract import Strategy
from providers.registry import strategies
from tenants.admin.forms.settings import REMOVAL_SUFFIX, SETTING_PREFIX, setting_fields
from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedForm
from tenants.admin.forms.version import VersionedModelForm
from tenants.models import Service
from tenants.secrets.service_secrets import secret_names
from tenants.services.settings import InvalidSettings


class ServiceStrategyForm(TenantScopedForm):
    tenant = TenantChoiceField(Service, "The tenant that offers it. It cannot be changed later.")
    strategy = forms.ChoiceField(
        choices=lambda: [(strategy.slug, strategy.label) for strategy in strategies().values()],
        widget=UnfoldAdminRadioSelectWidget,
        help_text="How it verifies subscribers. It cannot be changed later.",
    )


def service_form(service: Service) -> type[ServiceForm]:
    """Return the form of a service, with the settings that its strategy declares."""
    strategy = strategies().get(service.strategy)
    fields = setting_fields(service, strategy) if strategy is not None else {}
    declared = strategy.Settings.base_fields if strategy is not None else {}

    class Meta(ServiceForm.Meta):
        # For the read-only page, on which settings are no form fields.
        labels = {name: str(field.label) for name, field in fields.items()}
        help_texts = {SETTING_PREFIX + name: str(field.help_text) for name, field in declared.items()}

    attributes = {**fields, "Meta": Meta, "strategy": strategy, "new_service": service}
    return type("ServiceForm", (ServiceForm,), attributes)


class ServiceForm(VersionedModelForm):
    """A service and its settings, which the form of the strategy validates."""

    strategy: Strategy | None = None
    enabled: bool
    """Whether the service will be enabled."""
    new_service: Service
    """The instance of a form that adds a service."""

    class Meta:
        model = Service
        fields = ()  # the page passes them

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stored = kwargs.get("instance")
        kwargs["instance"] = stored if stored is not None and stored.pk else self.new_service
        super().__init__(*args, **kwargs)
        secret = secret_names(self.strategy)
        for name, value in self.instance.settings.items():
            if name not in secret:
                self.initial.setdefault(SETTING_PREFIX + name, value)

    def clean_name(self) -> str:
        """Check that the name is unique: without a field for the tenant, Django does not."""
        name: str = self.cleaned_data["name"]
        others = Service.objects.for_tenant(self.instance.tenant_id).exclude(pk=self.instance.pk)
        if others.filter(name=name).exists():
            raise ValidationError("The tenant already has a service with this name.")
        return name

    def clean(self) -> dict[str, Any]:
        super().clean()
        self.enabled = self.cleaned_data.get("enabled", self.instance.enabled)
        if self.strategy is None:
            if self.enabled:
                self.add_error(
                    None, "The provider of this service is not installed: disable it before you change it."
                )
            return self.cleaned_data
        stored = self.instance.stored_settings()
        values = self._settings_to_save(self.strategy, stored.secrets_in(stored.values))
        try:
            settings = stored.clean(values, enabled=self.enabled)
        except InvalidSettings as problem:
            for name, messages in problem.errors.items():
                field = SETTING_PREFIX + name if name in values else None
                if field not in self.errors:
                    self.add_error(field, messages)
        if not self.errors:
            self.instance.settings = settings
        return self.cleaned_data

    def _settings_to_save(self, strategy: Strategy, placeholders: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that were entered, and the placeholders of secrets that are kept."""
        values = {}
        for name in strategy.Settings.base_fields:
            field = SETTING_PREFIX + name
            # What is not valid by itself is validated again, with the other settings.
            entered = self.cleaned_data.get(field, self[field].data)
            removed = self.cleaned_data.get(field + REMOVAL_SUFFIX)
            if entered and removed:
                self.add_error(field, "Enter another secret or remove it, not both.")
            values[name] = entered if entered or removed else placeholders.get(name, entered)
        return values

    def _post_clean(self) -> None:
        # The model validates the whole row, and its errors name fields that this form does not have.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
        for field in (SETTING_PREFIX + name for name in secret_names(self.strategy)):
            # The field is rendered empty, as if the secret were kept.
            if self.errors and self.data.get(field) and field not in self.errors:
                self.add_error(field, "Enter it again: it was not saved, because of the other errors.")
