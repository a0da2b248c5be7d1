"""The fields that a strategy declares as its settings, in the clothes of the admin."""

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
from tenants.secrets.settings import PLACEHOLDER, secret_destinations, secrets_of

PREFIX = "settings"
EMPTY = "-"
_NO_PLACEHOLDER = RegexValidator(
    PLACEHOLDER, "A secret of this form is not taken: choose another.", inverse_match=True
)


def setting_name(name: str) -> str:
    """Return the name of a setting among the fields of its service: a setting may be called `name`, too."""
    return f"{PREFIX}-{name}"


def declared_settings(strategy: Strategy) -> dict[str, forms.Field]:
    """Return the fields that the strategy declares: its own first, then those of the forms it is based on."""
    form = strategy.Settings
    inherited = {name for base in form.__bases__ for name in getattr(base, "base_fields", {})}
    return dict(sorted(form.base_fields.items(), key=lambda item: item[0] in inherited))


def settings_fields(service: Service, strategy: Strategy) -> dict[str, forms.Field]:
    """Return the fields that the strategy declares, dressed; after a secret that can go, one to remove it."""
    given = secrets_of(strategy, service.settings)
    fields: dict[str, forms.Field] = {}
    for name, declared in declared_settings(strategy).items():
        field = fields[setting_name(name)] = _dressed(name, declared)
        if isinstance(field, SecretField):
            _keep_secret(
                field, is_set=name in given, sent_to=list(secret_destinations(strategy, name).values())
            )
            if name in given and not declared.required:
                fields[removal_of(name)] = _dressed(
                    f"Remove the {str(field.label).lower()}", forms.BooleanField(required=False)
                )
    return fields


def removal_of(name: str) -> str:
    """Return the name of the field that removes a secret."""
    # No setting has a hyphen in its name.
    return f"{setting_name(name)}-remove"


def shown_setting(name: str, field: forms.Field) -> Callable[[Service], Any]:
    """Return what tells the value of a setting to a person who may only look."""
    choices: Any = getattr(field, "choices", ())

    def shown(service: Service) -> Any:
        value = service.settings.get(name, field.initial)
        if isinstance(field, SecretField):
            return "Set" if value else "Not set"
        if isinstance(field.widget, forms.PasswordInput):
            return "Not shown"
        if isinstance(value, str):
            value = dict(choices).get(value, value)
        return value if shown.boolean else display_for_value(value, EMPTY) or EMPTY  # type: ignore[attr-defined]

    shown.__name__ = setting_name(name)
    shown.boolean = isinstance(field, forms.BooleanField)  # type: ignore[attr-defined] # an icon, then
    return shown


def _keep_secret(field: forms.Field, *, is_set: bool, sent_to: list[str]) -> None:
    """Let it be entered and never rendered, not even when the form comes back with an error."""
    if not isinstance(field.widget, SecretTextarea):
        field.widget = UnfoldAdminPasswordWidget(attrs={"autocomplete": "new-password"}, render_value=False)
        field.widget.attrs |= field.widget_attrs(field.widget)
    field.initial = None
    field.required = field.required and not is_set
    field.validators.append(_NO_PLACEHOLDER)
    standing = "It is set, and never shown: leave this empty to keep it." if is_set else "Never shown again."
    again = f"If you change {get_text_list(sent_to)}, enter it again." if is_set and sent_to else ""
    field.help_text = f"{field.help_text} {standing} {again} White space around it is removed.".strip()


def _dressed(name: str, field: forms.Field) -> forms.Field:
    """Return a copy in the clothes of the admin, its widget otherwise as the provider chose it."""
    field = copy.deepcopy(field)
    match field.widget:
        case forms.CheckboxSelectMultiple():
            classes = CHECKBOX_CLASSES
            field.widget.template_name = UnfoldAdminCheckboxSelectMultipleWidget.template_name
            field.widget.option_template_name = UnfoldAdminCheckboxSelectMultipleWidget.option_template_name
        case forms.Select():
            classes = SELECT_CLASSES
            if not field.widget.allow_multiple_selected:  # the arrow is part of the template
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
