"""The stored configuration: tenants, services, keys, signing keys and resource servers."""

from tenants.models.configuration import (
    ConfigurationModel,
    describe_last_change,
    get_last_change,
)
from tenants.models.document_health import DocumentHealth
from tenants.models.key import IN_FORCE, Key, KeyState
from tenants.models.key_use import KeyUse
from tenants.models.resource_server import ResourceServer
from tenants.models.service import SERVICE_NAME, Service
from tenants.models.signing_key import SigningKey
from tenants.models.tenant import (
    TENANT_ID,
    Algorithm,
    Assignment,
    Tenant,
    read_configuration_version,
    tenants_for_user,
)

__all__ = [
    "IN_FORCE",
    "SERVICE_NAME",
    "TENANT_ID",
    "Algorithm",
    "Assignment",
    "ConfigurationModel",
    "DocumentHealth",
    "Key",
    "KeyState",
    "KeyUse",
    "ResourceServer",
    "Service",
    "SigningKey",
    "Tenant",
    "describe_last_change",
    "get_last_change",
    "read_configuration_version",
    "tenants_for_user",
]
