"""The field `tenant`, which accepts the tenants that the user may work with, and the forms that have it."""

from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet

from tenants.admin.forms.whitespace import WhitespaceStrippingForm, WhitespaceStrippingModelForm
from tenants.models import TENANT_ID, Tenant


class TenantChoiceField(forms.ModelChoiceField):  # type: ignore[type-arg] # not generic at run time
    """Searches for a tenant: there may be too many for a list."""

    def __init__(self, model: type[Model], help_text: str) -> None:
        """`model`: the model whose `tenant` field this is; autocomplete uses it for the permission check."""
        widget = TenantSearch(model._meta.get_field("tenant"), admin.site)
        super().__init__(Tenant.objects, widget=widget, help_text=help_text)

    def to_python(self, value: Any) -> Tenant | None:
        """Refuse what cannot be a tenant ID without a query."""
        if value not in self.empty_values and not TENANT_ID.match(str(value)):
            raise ValidationError(self.error_messages["invalid_choice"], code="invalid_choice")
        return super().to_python(value)


class TenantSearch(AutocompleteSelect):
    """The search box. It renders a submitted value only if that can be a tenant ID."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        return super().optgroups(name, [text for text in value if TENANT_ID.match(str(text))], attr)


class TenantScopedForm(WhitespaceStrippingForm, forms.Form):
    """A form that may have a field `tenant`."""

    def __init__(self, tenants: QuerySet[Tenant], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "tenant" in self.fields:
            _tenant_field(self).queryset = tenants


def _tenant_field(form: forms.BaseForm) -> TenantChoiceField:
    return cast("TenantChoiceField", form.fields["tenant"])


class TenantScopedModelForm(WhitespaceStrippingModelForm):
    """Base of forms that add a row to a tenant. `restricted_to` sets the tenants."""

    tenants: QuerySet[Tenant]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _tenant_field(self).queryset = self.tenants


_F = TypeVar("_F", bound=TenantScopedModelForm)


def restricted_to(form: type[_F], tenants: QuerySet[Tenant]) -> type[_F]:
    """Return a subclass of the form that accepts only these tenants."""
    return type(form.__name__, (form,), {"tenants": tenants})
