"""Keeps each `jti` unique when a service changes between the keys of its tenant and other keys.

A `jti` is unique for each key of a tenant, and for each service without one. So the live session tokens of
the service move with it, or their assertions could be accepted once more.
"""

from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Now
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.utils import timezone

from ags.sessions.models import SessionToken
from providers.contract import Strategy
from providers.registry import strategies
from tenants.models import IN_FORCE, Key, Service

LONGEST_LIFE = timedelta(days=1)
"""More than the life of any session token. A `jti` may be kept for longer."""


@receiver(post_save, sender=Service)
def move_tokens_of_service(instance: Service, created: bool, raw: bool, **_: Any) -> None:
    """Assign keys to the tokens, or remove them, in the transaction that changes the service."""
    strategy = strategies().get(instance.strategy)
    if created or raw or strategy is None or not strategy.uses_keys_if:
        return
    # During a save, the values before it.
    used, uses = (
        _uses_keys(strategy, settings)
        for settings in (instance.loaded_values.get("settings"), instance.settings)
    )
    if uses and not used:
        keys = _keys(instance, strategy)
        _assign(instance, keys, Q(jti__isnull=False))
        # The limit is for the index: these tokens are live only until they expire.
        _assign(instance, keys, Q(jti=None, created_at__gt=timezone.now() - LONGEST_LIFE))
    elif used and not uses:
        for key in _keys(instance, strategy):  # one by one: two keys may have accepted the same `jti`
            _remove(instance, key)


@receiver(post_save, sender=Key)
def assign_tokens_to_new_key(instance: Key, created: bool, raw: bool, **_: Any) -> None:
    """Assign the key to tokens of services that use the keys of the tenant already.

    `manage.py apply` saves the services of a tenant before its keys.
    """
    if not created or raw:
        return
    key = Key.objects.for_tenant(instance.tenant_id).filter(pk=instance.pk)
    for service in Service.objects.for_tenant(instance.tenant_id).order_by("pk"):
        strategy = strategies().get(service.strategy)
        if (
            strategy is not None
            and strategy.uses_keys_if
            and strategy.key_kind is instance.kind
            and _uses_keys(strategy, service.settings)
        ):
            _assign(service, key, Q(jti__isnull=False))


def _uses_keys(strategy: Strategy, settings: Any) -> bool:
    # A restriction is saved even if the settings are not an object.
    return isinstance(settings, dict) and all(
        settings.get(name) == value for name, value in strategy.uses_keys_if.items()
    )


def _keys(service: Service, strategy: Strategy) -> QuerySet[Key]:
    keys = Key.objects.for_tenant(service.tenant_id)
    return keys.filter(pk__in=[key.pk for key in keys if key.kind is strategy.key_kind])


def _live(service: Service) -> QuerySet[SessionToken]:
    return SessionToken.objects.for_tenant(service.tenant_id).filter(service=service, dead_after__gt=Now())


def _assign(service: Service, keys: QuerySet[Key], which: Q) -> None:
    """Assign to the tokens the key with their `kid`."""
    tokens = SessionToken.objects.for_tenant(service.tenant_id)
    # Another service with the same key may have accepted the same `jti` already.
    is_known = Exists(tokens.filter(key__in=keys, key__kid=OuterRef("kid"), jti=OuterRef("jti")))
    live = _live(service).filter(which, key=None, kid__in=keys.values("kid"))
    live.exclude(is_known).update(key=Subquery(keys.filter(kid=OuterRef("kid")).values("pk")))


def _remove(service: Service, key: Key) -> None:
    """Remove the key from tokens with a `jti`, except those that would become valid again by it."""
    tokens = SessionToken.objects.for_tenant(service.tenant_id)
    is_known = Exists(tokens.filter(service=service, key=None, jti=OuterRef("jti")))
    movable = Q(redeemed_at__isnull=False)
    now = timezone.now()
    if (
        key.state in IN_FORCE
        and not (key.not_before and key.not_before > now)
        and not (key.not_after and key.not_after <= now)
    ):
        movable |= Q(created_at__gt=key.revoked_before) if key.revoked_before else Q(redeemed_at=None)
    live = _live(service).filter(movable, key=key, jti__isnull=False)
    live.exclude(is_known).update(key=None)
