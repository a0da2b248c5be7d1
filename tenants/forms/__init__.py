"""The forms of the pages of staff."""

from tenants.forms.key import GENERATE, KeyChangeForm, NewKeyForm
from tenants.forms.of_tenant import ChoiceOfTenant, FormOfTenants, NewOfTenant, form_for
from tenants.forms.resource_server import NewResourceServerForm
from tenants.forms.service import ChoiceOfStrategy, service_form
from tenants.forms.settings import declared_settings, settings_fields, shown_setting
from tenants.forms.tenant import TenantForm
from tenants.forms.whitespace import WhitespaceStrippingModelForm

__all__ = [
    "GENERATE",
    "ChoiceOfStrategy",
    "ChoiceOfTenant",
    "FormOfTenants",
    "KeyChangeForm",
    "NewKeyForm",
    "NewOfTenant",
    "NewResourceServerForm",
    "TenantForm",
    "WhitespaceStrippingModelForm",
    "declared_settings",
    "form_for",
    "service_form",
    "settings_fields",
    "shown_setting",
]
