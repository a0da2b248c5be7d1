"""The base of the forms of staff: what is pasted is stripped, in every field."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from tenants.whitespace import strip_values


class WhitespaceStrippingForm(forms.BaseForm):
    """Strips the data of all fields, secrets too; those named in `verbatim_fields` stay as they were sent."""

    verbatim_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(None if data is None else strip_values(data, self.verbatim_fields), *args, **kwargs)


class WhitespaceStrippingModelForm(WhitespaceStrippingForm, forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """The same for the forms of models."""
