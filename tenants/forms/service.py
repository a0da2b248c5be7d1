"""The forms of a service: tenant and strategy first, then the settings that the strategy declares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.admin.utils import display_for_value
from django.core.exceptions import ValidationError
from django.forms.utils import pretty_name
from django.http import HttpRequest
from unfold.widgets import (
    INPUT_CLASSES,
    SELECT_CLASSES,
    SWITCH_CLASSES,
    TEXTAREA_CLASSES,
    UnfoldAdminRadioSelectWidget,
)

from providers.contract import Strategy
from providers.registry import strategies
from tenants.forms.of_tenant import ChoiceOfTenant, FormOfTenants
from tenants.models import Service

if TYPE_CHECKING:
    from tenants.admin.service import ServiceAdmin


class ChoiceOfStrategy(FormOfTenants):
    """The first step to a new service."""

    tenant = ChoiceOfTenant(Service, "Whose service it is. It cannot be changed later.")
    strategy = forms.ChoiceField(
        choices=lambda: [(strategy.slug, strategy.label) for strategy in strategies().values()],
        widget=UnfoldAdminRadioSelectWidget,
        help_text="How it proves who somebody is. It cannot be changed later.",
    )


# The settings of a service

_PREFIX = "settings"
EMPTY = "-"


def setting_name(name: str) -> str:
    """Return the name of a setting among the fields of its service: a setting may be called `name`, too."""
    return f"{_PREFIX}-{name}"


def service_form(
    service: Service, page: ServiceAdmin, request: HttpRequest
) -> type[forms.ModelForm[Service]]:
    """Return the form of a service: its own fields, dressed by the page, and those its strategy declares."""
    strategy = strategies().get(service.strategy)
    declared = strategy.Settings.base_fields if strategy is not None else {}
    settings = {setting_name(name): _dressed(name, field) for name, field in declared.items()}
    form = type("ServiceForm", (ServiceForm,), {**settings, "strategy": strategy, "new": service})
    return forms.modelform_factory(
        Service,
        form=form,
        fields=["name", "display_name", "logo", "enabled"],
        # For whoever may only look: there, these are rows of the page and no fields.
        labels={name: str(field.label) for name, field in settings.items()},
        help_texts={name: str(field.help_text) for name, field in settings.items()},
        formfield_callback=lambda field, **kwargs: page.formfield_for_dbfield(field, request, **kwargs),
    )


def shown_setting(name: str, field: forms.Field) -> Callable[[Service], Any]:
    """Return what tells the value of a setting to a person who may only look."""
    choices: Any = getattr(field, "choices", ())

    def shown(service: Service) -> Any:
        value = service.settings.get(name, field.initial)
        if isinstance(field.widget, forms.PasswordInput):
            return "Not shown"
        if isinstance(value, str):
            value = dict(choices).get(value, value)
        return value if shown.boolean else display_for_value(value, EMPTY) or EMPTY  # type: ignore[attr-defined]

    shown.__name__ = setting_name(name)
    shown.boolean = isinstance(field, forms.BooleanField)  # type: ignore[attr-defined] # an icon, then
    return shown


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """A service and its settings. The strategy's own form is the judge of them."""

    strategy: Strategy | None = None
    new: Service
    """What the form is about when it adds."""

    class Meta:
        model = Service
        fields = ()  # `service_form` says which

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stored = kwargs.get("instance")
        kwargs["instance"] = stored if stored is not None and stored.pk else self.new
        super().__init__(*args, **kwargs)
        for name, value in self.instance.settings.items():
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
        if self.strategy is None:
            if self.cleaned_data.get("enabled"):
                self.add_error(
                    "enabled", "The provider of this service is not installed: it can only be disabled."
                )
            return self.cleaned_data
        judge = self.strategy.Settings(self.data, prefix=_PREFIX)
        for name, messages in judge.errors.items():
            field = setting_name(name) if name in judge.fields else None
            if field not in self.errors:
                self.add_error(field, messages)
        if not self.errors:
            self.instance.settings = {name: judge.cleaned_data[name] for name in judge.fields}
        return self.cleaned_data

    def _post_clean(self) -> None:
        # The model judges the whole row, and names fields that are not here: only once each field is right.
        if not self.errors:
            super()._post_clean()  # type: ignore[misc]


def _dressed(name: str, field: forms.Field) -> forms.Field:
    """Return a copy in the clothes of the admin, its widget otherwise as the provider chose it."""
    field = copy.deepcopy(field)
    match field.widget:
        case forms.Select():
            classes = SELECT_CLASSES
        case forms.CheckboxInput():
            classes = SWITCH_CLASSES
        case forms.Textarea():
            classes = TEXTAREA_CLASSES
        case _:
            classes = INPUT_CLASSES
    field.widget.attrs["class"] = " ".join(classes)
    field.label = field.label or pretty_name(name)
    return field
