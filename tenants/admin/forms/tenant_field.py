"""What all forms share that ask for a tenant: only those that the person may work with."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import ValidationError
from django.db.models import Model, QuerySet

from tenants.admin.forms.whitespace import WhitespaceStrippingForm, WhitespaceStrippingModelForm
from tenants.models import TENANT_ID, Tenant


class TenantChoiceField(forms.ModelChoiceField):  # type: ignore[type-arg] # not generic at run time
    """Finds a tenant by what is typed: there may be too many for a list."""

    def __init__(self, model: type[Model], help_text: str) -> None:
        """`model` is whose field `tenant` this is; the search asks by which it may be used."""
        widget = TenantSearch(model._meta.get_field("tenant"), admin.site)
        super().__init__(Tenant.objects, widget=widget, help_text=help_text)

    def to_python(self, value: Any) -> Tenant | None:
        """Look up what may be a tenant ID; the database need not see anything else."""
        if value not in self.empty_values and not TENANT_ID.match(str(value)):
            raise ValidationError(self.error_messages["invalid_choice"], code="invalid_choice")
        tenant: Tenant | None = super().to_python(value)
        return tenant


class TenantSearch(AutocompleteSelect):
    """The box in which is typed. What was typed comes back only if it may be a tenant ID."""

    def optgroups(self, name: str, value: Any, attr: Any = None) -> Any:
        """Return the one option that is chosen."""
        return super().optgroups(name, [one for one in value if TENANT_ID.match(str(one))], attr)


class TenantScopedForm(WhitespaceStrippingForm, forms.Form):
    """A form that asks for a tenant, and takes one of those that the person may work with."""

    def __init__(self, tenants: QuerySet[Tenant], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _tenant_field(self).queryset = tenants


def _tenant_field(form: forms.BaseForm) -> TenantChoiceField:
    return cast("TenantChoiceField", form.fields["tenant"])


class TenantScopedModelForm(WhitespaceStrippingModelForm):
    """Base of the forms that add something to a tenant that the person may work with."""

    tenants: QuerySet[Tenant]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _tenant_field(self).queryset = self.tenants


_F = TypeVar("_F", bound=TenantScopedModelForm)


def restricted_to(form: type[_F], tenants: QuerySet[Tenant]) -> type[_F]:
    """Return that form for one of these tenants."""
    return type(form.__name__, (form,), {"tenants": tenants})
