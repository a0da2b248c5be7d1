"""Who the operators are, what each switched on, which keys each is trusted by, and what signs for it."""

from tenants.models.configuration import Configuration
from tenants.models.document_health import DocumentHealth
from tenants.models.key import IN_FORCE, Key, KeyState
from tenants.models.resource_server import ResourceServer
from tenants.models.service import SERVICE_NAME, Service
from tenants.models.signing_key import SigningKey
from tenants.models.tenant import TENANT_ID, Algorithm, Assignment, Tenant, tenants_of

__all__ = [
    "IN_FORCE",
    "SERVICE_NAME",
    "TENANT_ID",
    "Algorithm",
    "Assignment",
    "Configuration",
    "DocumentHealth",
    "Key",
    "KeyState",
    "ResourceServer",
    "Service",
    "SigningKey",
    "Tenant",
    "tenants_of",
]
