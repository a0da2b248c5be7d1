"""The pages on which staff manage tenants, services and keys."""

from tenants.admin import key, service, tenant

__all__ = ["key", "service", "tenant"]
