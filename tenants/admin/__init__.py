"""The pages on which staff manage tenants and what belongs to their configuration."""

from tenants.admin import key, resource_server, service, signing_key, tenant

__all__ = ["key", "resource_server", "service", "signing_key", "tenant"]
