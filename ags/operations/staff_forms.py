"""Forms of users and groups that do not overwrite a change that their user has not seen.

Users and groups have no history, so their version is a digest of what the form shows.
"""

import hashlib
import json
from typing import Any

from django import forms
from django.contrib.auth.models import Group, User
from django.utils.html import format_html
from unfold.forms import UserChangeForm

from ags.sessions.models import Event
from tenants.times import format_utc

MAX_EVENTS = 1000
"""The latest events of no tenant, in which the last change is searched."""


class VersionedStaffForm(forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """A form that carries the version of the row that it shows.

    It is refused if the row has another version by the time the form is submitted. A form without a version
    was opened at the release before, and is accepted.
    """

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["version"] = "" if self.instance._state.adding else _get_version(self.instance)

    def clean(self) -> Any:
        cleaned: Any = super().clean()
        version = self.cleaned_data.get("version")
        if version and not self.instance._state.adding:
            model = type(self.instance)
            # Wait for a change that is being saved, such as that of `apply`.
            model._base_manager.select_for_update(no_key=True).filter(pk=self.instance.pk).first()
            if version != _get_version(self.instance):
                reload = '{} <a class="underline" href="">Reload the form</a>, and make your change again.'
                self.add_error(None, format_html(reload, _describe_last_change(self.instance)))
        return cleaned


class VersionedUserForm(VersionedStaffForm, UserChangeForm):  # type: ignore[misc] # unfold is not typed
    pass


def _get_version(row: User | Group) -> str:
    model = type(row)
    names = [
        field.name for field in model._meta.concrete_fields if field.name not in ("password", "last_login")
    ]
    many = "groups" if isinstance(row, User) else "permissions"
    values = model._base_manager.filter(pk=row.pk).values_list(*names).first()
    related = sorted(getattr(row, many).values_list("pk", flat=True))
    shown = json.dumps([values, related], default=str)
    return hashlib.sha256(shown.encode()).hexdigest()[:16]


def _describe_last_change(row: User | Group) -> str:
    """Return who changed the row last, and when, if the audit trail has it."""
    stored: User | Group = type(row)._base_manager.get(pk=row.pk)  # the form has set its own values on `row`
    identity = (stored._meta.model_name, str(stored))
    events = Event.unscoped.filter(tenant=None).order_by("-created_at")[:MAX_EVENTS]
    for event in events:
        is_change = event.kind == Event.Kind.STAFF_ACTION and "after" in event.details
        if is_change and (event.details.get("model"), event.details.get("object")) == identity:
            return f"Changed by {event.actor} at {format_utc(event.created_at)}."
    return "Changed."
