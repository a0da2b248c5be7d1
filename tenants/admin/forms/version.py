"""Forms that do not overwrite a change that their user has not seen."""

from typing import Any

from django import forms
from django.utils.html import format_html

from tenants.admin.forms.whitespace import WhitespaceStrippingModelForm
from tenants.models import describe_last_change, get_last_change


class VersionedModelForm(WhitespaceStrippingModelForm):
    """A form that carries the version of the row that it shows: the last entry of its history.

    It is refused if the row has another version by the time the form is submitted.
    """

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        last_change = None if self.instance._state.adding else get_last_change(self.instance)
        self.initial["version"] = str(last_change.pk) if last_change else ""

    def clean(self) -> dict[str, Any]:
        """Check the version, unless the form adds a row."""
        super().clean()
        if self.cleaned_data.get("version", "") != self.initial["version"]:
            # A browser's reload would submit this form again.
            reload = '{} <a class="underline" href="">Reload the form</a>, and make your change again.'
            self.add_error(None, format_html(reload, describe_last_change(self.instance)))
        return self.cleaned_data
