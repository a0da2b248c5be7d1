"""The forms of the pages of staff."""

from tenants.admin.forms.key import GENERATE, KeyChangeForm, NewKeyForm, UsedKeyChangeForm
from tenants.admin.forms.resource_server import NewResourceServerForm
from tenants.admin.forms.service import ServiceStrategyForm, service_form
from tenants.admin.forms.settings import declared_settings, setting_display, setting_fields
from tenants.admin.forms.tenant import TenantForm
from tenants.admin.forms.tenant_field import (
    TenantChoiceField,
    TenantScopedForm,
    TenantScopedModelForm,
    restricted_to,
)
from tenants.admin.forms.version import VersionedModelForm

__all__ = [
    "GENERATE",
    "KeyChangeForm",
    "NewKeyForm",
    "NewResourceServerForm",
    "ServiceStrategyForm",
    "TenantChoiceField",
    "TenantForm",
    "TenantScopedForm",
    "TenantScopedModelForm",
    "UsedKeyChangeForm",
    "VersionedModelForm",
    "declared_settings",
    "restricted_to",
    "service_form",
    "setting_display",
    "setting_fields",
]
