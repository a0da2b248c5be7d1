"""The guarded manager: rows of one tenant, or a loud word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from django.db import models

if TYPE_CHECKING:
    from tenants.models import Tenant

_M = TypeVar("_M", bound=models.Model)


class UnscopedAccess(RuntimeError):
    """Raised when a tenant-scoped model is queried without naming the tenant."""


class ScopedManager(models.Manager[_M]):
    """`objects` of every model that belongs to a tenant: `for_tenant(t)` works, all else raises."""

    def for_tenant(self, tenant: Tenant | str) -> models.QuerySet[_M]:
        """Return the rows of that tenant, given as a row or as its id."""
        return super().get_queryset().filter(tenant=tenant)

    def get_queryset(self) -> NoReturn:
        """Refuse."""
        name = self.model.__name__
        raise UnscopedAccess(f"{name}.objects needs for_tenant(); {name}.unscoped is for the rest")


class TenantScoped(models.Model):
    """Base of every model but `Tenant`."""

    # First, so that Django's own machinery (admin, dumpdata, related managers) takes it as the default.
    unscoped: models.Manager[Any] = models.Manager()
    objects = ScopedManager()

    class Meta:
        abstract = True
