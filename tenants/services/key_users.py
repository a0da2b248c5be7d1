"""The services that verify with the keys of a tenant."""

from django.db.models import Q, QuerySet

from providers.contract import KeyKind
from providers.registry import strategies
from tenants.models import Service


def key_users(kind: KeyKind) -> Q:
    """Return a condition on services: they cannot verify anything without a key of this kind."""
    condition = Q(pk__in=[])
    for slug, strategy in strategies().items():
        if strategy.uses_keys and strategy.key_kind is kind:
            settings = {f"settings__{name}": value for name, value in strategy.uses_keys_if.items()}
            condition |= Q(strategy=slug, **settings)
    return condition


def enabled_services(tenant_id: str) -> QuerySet[Service]:
    """Return the services whose provider is installed."""
    return Service.objects.for_tenant(tenant_id).filter(enabled=True, strategy__in=list(strategies()))
