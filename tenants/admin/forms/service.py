"""The forms of a service: tenant and strategy first, then the settings that the strategy declares."""

from __future__ import annotations

import copy
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminRadioSelectWidget

from providers.contract import Strategy
from providers.registry import strategies
from tenants.admin.forms.settings import PREFIX, removal_name, setting_fields, setting_name
from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedForm
from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import Service
from tenants.secrets.settings import is_placeholder, secret_names, select_secrets


class ServiceStrategyForm(TenantScopedForm):
    """The first step of adding a service."""

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
        help_texts = {setting_name(name): str(field.help_text) for name, field in declared.items()}

    attributes = {**fields, "Meta": Meta, "strategy": strategy, "new_service": service}
    return type("ServiceForm", (ServiceForm,), attributes)


class ServiceForm(WhitespaceStrippingModelForm):
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
                self.initial.setdefault(setting_name(name), value)

    def clean_name(self) -> str:
        """Check that the name is unique: without a field for the tenant, Django does not."""
        name: str = self.cleaned_data["name"]
        others = Service.objects.for_tenant(self.instance.tenant_id).exclude(pk=self.instance.pk)
        if others.filter(name=name).exists():
            raise ValidationError("The tenant already has a service with this name.")
        return name

    def clean(self) -> dict[str, Any]:
        """Validate the settings with the form of the strategy, and set them."""
        super().clean()
        self.enabled = self.cleaned_data.get("enabled", self.instance.enabled)
        if self.strategy is None:
            if self.enabled:
                self.add_error(
                    None, "The provider of this service is not installed: disable it before you change it."
                )
            return self.cleaned_data
        kept = self._kept_secrets(self.strategy)
        data: Any = copy.copy(self.data)
        decrypted = self._decrypt(kept)
        for name, text in decrypted.items():
            data[setting_name(name)] = text
        form = self.strategy.Settings(data, prefix=PREFIX)
        for name, messages in form.errors.items():
            field = setting_name(name) if name in form.fields else None
            # An error about a placeholder is no error of the secret.
            if field not in self.errors and not is_placeholder(decrypted.get(name)):
                self.add_error(field, messages)
        for name, reason in self.instance.secrets_to_reenter(self.strategy, kept, form.cleaned_data).items():
            if setting_name(name) not in self.errors:
                self.add_error(setting_name(name), reason)
        if not self.errors:
            entered = {name: form.cleaned_data[name] for name in form.fields if name not in kept}
            self.instance.settings = entered | kept
        return self.cleaned_data

    def _kept_secrets(self, strategy: Strategy) -> dict[str, Any]:
        """Return the placeholders of the secrets that are neither replaced nor removed."""
        kept = {}
        for name, placeholder in select_secrets(strategy, self.instance.settings).items():
            entered = self.cleaned_data.get(setting_name(name))
            removed = self.cleaned_data.get(removal_name(name))
            if entered and removed:
                self.add_error(setting_name(name), "Enter another secret or remove it, not both.")
            if not entered and not removed:
                kept[name] = placeholder
        return kept

    def _decrypt(self, kept: dict[str, Any]) -> dict[str, Any]:
        entered = any(self.cleaned_data.get(setting_name(name)) for name in secret_names(self.strategy))
        # A disabled service may be saved even if its secrets cannot be decrypted.
        lenient = not entered and not self.enabled
        try:
            decrypted: dict[str, Any] = self.instance.with_secrets(kept, lenient=lenient)
        except ValidationError as error:
            for message in error.message_dict["settings"]:
                name, _, reason = message.partition(": ")
                self.add_error(setting_name(name), reason)
            return kept
        return decrypted

    def _post_clean(self) -> None:
        # The model validates the whole row, and its errors name fields that this form does not have.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
        for name in map(setting_name, secret_names(self.strategy)):
            # The field is rendered empty, as if the secret were kept.
            if self.errors and self.data.get(name) and name not in self.errors:
                self.add_error(name, "Enter it again: it was not saved, because of the other errors.")
