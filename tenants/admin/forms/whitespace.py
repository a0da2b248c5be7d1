"""The bases of all forms of staff: white space around pasted values is removed."""

from typing import Any, ClassVar

from django import forms

from tenants.whitespace import strip_values


class WhitespaceStrippingForm(forms.BaseForm):
    """Strips the data of all fields, secrets too, but those in `verbatim_fields`."""

    verbatim_fields: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: Any = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(None if data is None else strip_values(data, self.verbatim_fields), *args, **kwargs)


class WhitespaceStrippingModelForm(WhitespaceStrippingForm, forms.ModelForm):  # type: ignore[type-arg] # not generic at run time
    """A `WhitespaceStrippingForm` of a model."""
