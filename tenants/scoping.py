"""A model manager that gives access only to the rows of one tenant.

Not by django-scopes, whose scope is ambient: here each query names its tenant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.db import models

if TYPE_CHECKING:
    from tenants.models import Tenant

_M = TypeVar("_M", bound=models.Model)


class UnscopedAccess(RuntimeError):
    """A tenant-scoped model was queried without a tenant."""


class ScopedManager(models.Manager[_M]):
    """The `objects` manager of tenant-scoped models. Every query except `for_tenant` raises."""

    def for_tenant(self, tenant: Tenant | str) -> models.QuerySet[_M]:
        """Return the rows of a tenant, given as an instance or as its ID."""
        return super().get_queryset().filter(tenant=tenant)

    def get_queryset(self) -> NoReturn:
        name = self.model.__name__
        raise UnscopedAccess(f"{name}.objects needs for_tenant(); use {name}.unscoped for all tenants")


class TenantScoped(models.Model):
    """Base class of the models that belong to a tenant.

    `unscoped` is the unrestricted manager.
    """

    # Declared first, so that it is the default manager, which the admin and dumpdata use.
    unscoped: models.Manager[Any] = models.Manager()
    objects = ScopedManager()

    class Meta:
        abstract = True
