"""The base of what requests are judged by."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Self

from django.apps import apps
from django.db import models, transaction

_UNREAD = object()

if TYPE_CHECKING:
    from tenants.models.tenant import Tenant


class Configuration(models.Model):
    """Base of the models that requests are judged by: every way in is validated, and is noticed."""

    _read: dict[str, Any] = {}
    changed: frozenset[str] = frozenset()
    """While it is stored: the fields that were changed since it was read."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Validate, store, and give the tenant a new version. Raises ValidationError.

        What has not been changed since it was read is taken from the row as it is now: a form that was opened
        before a revocation does not undo it.
        """
        self._store(*args, validated=True, **kwargs)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember what was read, so that it is known later what has been changed."""
        row = super().from_db(*args, **kwargs)
        row._remember()  # noqa: SLF001 - its own
        return row

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        """Read again, and remember that."""
        super().refresh_from_db(*args, **kwargs)
        self._remember()

    def save_restriction(self, **changes: Any) -> None:
        """Store what takes something away. It is never refused, whatever else is wrong with the row."""
        for name, value in changes.items():
            setattr(self, name, value)
        self._store(validated=False, update_fields=list(changes))

    @transaction.atomic
    def _store(self, *args: Any, validated: bool, **kwargs: Any) -> None:
        tenant = self._tenant()
        # Changes of one tenant happen one after the other: what is validated is what is there.
        tenant.select_for_update(no_key=True).first()
        only = kwargs.get("update_fields")
        others = set() if only is None else {f.name for f in self._meta.concrete_fields} - set(only)
        if not self._state.adding:
            self._merge_concurrent(others)
        if validated:
            self.full_clean(exclude=others)
        self._prepare_fields(others)
        super().save(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)
        self._remember()

    def _prepare_fields(self, others: set[str]) -> None:
        """Bring what is right into the form that is stored. `others` are the fields that are not written."""

    def _merge_concurrent(self, others: set[str]) -> Self:
        """Take the row as it is now for what was not changed here, and return it."""
        stored = type(self)._base_manager.get(pk=self.pk)
        changed = set()
        for field in self._meta.concrete_fields:
            if field.name in others or getattr(self, field.attname) == self._read.get(field.attname, _UNREAD):
                setattr(self, field.attname, getattr(stored, field.attname))
            else:
                changed.add(field.name)
        self.changed = frozenset(changed)
        return stored

    def original_value(self, name: str) -> Any:
        """Return what the field held when this row was read."""
        return self._read.get(name)

    def _remember(self) -> None:
        values = {field.attname: self.__dict__.get(field.attname) for field in self._meta.concrete_fields}
        # Of what can be changed in its place, a copy.
        self._read = {n: copy.deepcopy(v) if isinstance(v, dict | list) else v for n, v in values.items()}

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Remove, and give the tenant a new version."""
        tenant = self._tenant()
        tenant.select_for_update(no_key=True).first()
        done = super().delete(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)
        return done

    def _tenant(self) -> models.QuerySet[Tenant]:
        tenant: type[Tenant] = apps.get_model("tenants", "Tenant")
        return tenant.objects.filter(pk=self.pk if isinstance(self, tenant) else self.tenant_id)  # type: ignore[attr-defined]
