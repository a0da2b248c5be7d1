"""The form fields of settings: declared by a strategy, with widgets of the admin."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib.admin.utils import display_for_value
from django.core.validators import RegexValidator
from django.forms.utils import pretty_name
from django.utils.text import get_text_list
from unfold.widgets import (
    CHECKBOX_CLASSES,
    INPUT_CLASSES,
    SELECT_CLASSES,
    SWITCH_CLASSES,
    TEXTAREA_CLASSES,
    UnfoldAdminCheckboxSelectMultipleWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
)

from providers.contract import SecretField, SecretTextarea, Strategy
from tenants.models import Service
from tenants.secrets.service_secrets import PLACEHOLDER, secret_destinations, select_secrets

SETTING_PREFIX = "settings-"
"""Begins the names of form fields for settings: keeps them apart from the fields of the service."""

REMOVAL_SUFFIX = "-remove"  # no setting has a hyphen in its name
EMPTY = "-"
_NO_PLACEHOLDER = RegexValidator(
    PLACEHOLDER, "A secret of this form is not accepted: choose another.", inverse_match=True
)


def declared_settings(strategy: Strategy) -> dict[str, forms.Field]:
    """Return the fields that the strategy declares: its own, then those of base forms."""
    form = strategy.Settings
    inherited = {name for base in form.__bases__ for name in getattr(base, "base_fields", {})}
    return dict(sorted(form.base_fields.items(), key=lambda item: item[0] in inherited))


def setting_fields(service: Service, strategy: Strategy) -> dict[str, forms.Field]:
    """Return the strategy's fields with admin widgets, plus a "remove" checkbox for each optional secret."""
    secrets = select_secrets(strategy, service.settings)
    fields: dict[str, forms.Field] = {}
    for name, declared in declared_settings(strategy).items():
        field = fields[SETTING_PREFIX + name] = _with_admin_widget(name, declared)
        if isinstance(field, SecretField):
            destinations = list(secret_destinations(strategy, name).values())
            _prepare_secret_field(field, is_set=name in secrets, destinations=destinations)
            if name in secrets and not declared.required:
                fields[SETTING_PREFIX + name + REMOVAL_SUFFIX] = _with_admin_widget(
                    f"Remove the {str(field.label).lower()}", forms.BooleanField(required=False)
                )
    return fields


def setting_display(name: str, field: forms.Field) -> Callable[[Service], Any]:
    choices: Any = getattr(field, "choices", ())

    def display(service: Service) -> Any:
        value = service.settings.get(name, field.initial)
        if isinstance(field, SecretField):
            return "Set" if value else "Not set"
        if isinstance(field.widget, forms.PasswordInput):
            return "Not shown"
        if isinstance(value, str):
            value = dict(choices).get(value, value)
        return value if display.boolean else display_for_value(value, EMPTY) or EMPTY  # type: ignore[attr-defined]

    display.__name__ = SETTING_PREFIX + name
    display.boolean = isinstance(field, forms.BooleanField)  # type: ignore[attr-defined] # an icon
    return display


def _prepare_secret_field(field: forms.Field, *, is_set: bool, destinations: list[str]) -> None:
    """Never render the secret, not even when the form is shown again with errors; keep it if left empty."""
    if not isinstance(field.widget, SecretTextarea):
        field.widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
        field.widget.attrs |= field.widget_attrs(field.widget)
    field.initial = None
    field.required = field.required and not is_set
    field.validators.append(_NO_PLACEHOLDER)
    sentences = [str(field.help_text)]
    sentences.append("It is set. Leave this empty to keep it." if is_set else "It is not shown again.")
    if is_set and destinations:
        sentences.append(f"If you change {get_text_list(destinations)}, enter it again.")
    sentences.append("White space around it is removed.")
    field.help_text = " ".join(sentences).strip()


def _with_admin_widget(name: str, field: forms.Field) -> forms.Field:
    """Return a copy of the field: the widget of the provider, in the style of the admin."""
    field = copy.deepcopy(field)
    match field.widget:
        case forms.CheckboxSelectMultiple():
            classes = CHECKBOX_CLASSES
            field.widget.template_name = UnfoldAdminCheckboxSelectMultipleWidget.template_name
            field.widget.option_template_name = UnfoldAdminCheckboxSelectMultipleWidget.option_template_name
        case forms.Select():
            classes = SELECT_CLASSES
            if not field.widget.allow_multiple_selected:  # the template draws the arrow
                field.widget.template_name = UnfoldAdminSelectWidget.template_name
        case forms.CheckboxInput():
            classes = SWITCH_CLASSES
        case forms.Textarea():
            classes = TEXTAREA_CLASSES
        case _:
            classes = INPUT_CLASSES
    field.widget.attrs["class"] = " ".join(classes)
    field.label = field.label or pretty_name(name)
    return field
