"""The forms of a service: tenant and strategy first, then the settings that the strategy declares."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminRadioSelectWidget

from providers.contract import Strategy
from providers.registry import strategies
from tenants.admin.forms.settings import PREFIX, removal_of, setting_name, settings_fields
from tenants.admin.forms.tenant_field import TenantChoiceField, TenantScopedForm
from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import Service
from tenants.secrets.settings import is_placeholder, secret_names, secrets_of

if TYPE_CHECKING:
    from tenants.admin.service import ServiceAdmin


class ServiceStrategyForm(TenantScopedForm):
    """The first step to a new service."""

    tenant = TenantChoiceField(Service, "Whose service it is. It cannot be changed later.")
    strategy = forms.ChoiceField(
        choices=lambda: [(strategy.slug, strategy.label) for strategy in strategies().values()],
        widget=UnfoldAdminRadioSelectWidget,
        help_text="How it proves who somebody is. It cannot be changed later.",
    )


def service_form(
    service: Service, page: ServiceAdmin, request: HttpRequest
) -> type[forms.ModelForm[Service]]:
    """Return the form of a service: its own fields, dressed by the page, and those its strategy declares."""
    strategy = strategies().get(service.strategy)
    settings = settings_fields(service, strategy) if strategy is not None else {}
    declared = strategy.Settings.base_fields if strategy is not None else {}
    form = type("ServiceForm", (ServiceForm,), {**settings, "strategy": strategy, "new": service})
    return forms.modelform_factory(
        Service,
        form=form,
        fields=["name", "display_name", "logo", *(["enabled"] if service._state.adding else [])],
        # For whoever may only look: there, these are rows of the page and no fields.
        labels={name: str(field.label) for name, field in settings.items()},
        help_texts={setting_name(name): str(field.help_text) for name, field in declared.items()},
        formfield_callback=lambda field, **kwargs: page.formfield_for_dbfield(field, request, **kwargs),
    )


class ServiceForm(WhitespaceStrippingModelForm):
    """A service and its settings. The strategy's own form is the judge of them."""

    strategy: Strategy | None = None
    enabled: bool
    """Whether the service is, once the form is stored."""
    new: Service
    """What the form is about when it adds."""

    class Meta:
        model = Service
        fields = ()  # `service_form` says which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stored = kwargs.get("instance")
        kwargs["instance"] = stored if stored is not None and stored.pk else self.new
        super().__init__(*args, **kwargs)
        secret = secret_names(self.strategy)
        for name, value in self.instance.settings.items():
            if name not in secret:
                self.initial.setdefault(setting_name(name), value)

    def clean_name(self) -> str:
        """Keep names apart. The form has no field for the tenant, so Django's own check is left out."""
        name: str = self.cleaned_data["name"]
        others = Service.objects.for_tenant(self.instance.tenant_id).exclude(pk=self.instance.pk)
        if others.filter(name=name).exists():
            raise ValidationError("The tenant has a service of this name already.")
        return name

    def clean(self) -> dict[str, Any]:
        """Take the settings over once the strategy's form accepts them as a whole."""
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
        clear = self._in_the_clear(kept)
        for name, text in clear.items():
            data[setting_name(name)] = text
        judge = self.strategy.Settings(data, prefix=PREFIX)
        for name, messages in judge.errors.items():
            field = setting_name(name) if name in judge.fields else None
            if field not in self.errors and not is_placeholder(
                clear.get(name)
            ):  # a mark says nothing of the secret
                self.add_error(field, messages)
        for name, why in self.instance.secrets_to_reenter(self.strategy, kept, judge.cleaned_data).items():
            if setting_name(name) not in self.errors:
                self.add_error(setting_name(name), why)
        if not self.errors:
            self.instance.settings = {n: judge.cleaned_data[n] for n in judge.fields if n not in kept} | kept
        return self.cleaned_data

    def _kept_secrets(self, strategy: Strategy) -> dict[str, Any]:
        """Return what stands for the secrets that stay as they are."""
        kept = {}
        for name, mark in secrets_of(strategy, self.instance.settings).items():
            entered, removed = (self.cleaned_data.get(one) for one in (setting_name(name), removal_of(name)))
            if entered and removed:
                self.add_error(setting_name(name), "Either enter another or remove it.")
            if not entered and not removed:
                kept[name] = mark
        return kept

    def _in_the_clear(self, kept: dict[str, Any]) -> dict[str, Any]:
        entered = any(self.cleaned_data.get(setting_name(name)) for name in secret_names(self.strategy))
        # What is switched off may stay as it is, even if nothing opens it any more.
        lenient = not entered and not self.enabled
        try:
            clear: dict[str, Any] = self.instance.with_secrets(kept, lenient=lenient)
        except ValidationError as problem:
            for message in problem.message_dict["settings"]:
                name, _, reason = message.partition(": ")
                self.add_error(setting_name(name), reason)
            return kept
        return clear

    def _post_clean(self) -> None:
        # The model judges the whole row, and names fields that are not here: only once each field is right.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]
        for name in map(setting_name, secret_names(self.strategy)):
            # Its field comes back empty, which would seem to mean that it stays as it was.
            if self.errors and self.data.get(name) and name not in self.errors:
                self.add_error(name, "Enter it again: it is not taken before all else is right.")
