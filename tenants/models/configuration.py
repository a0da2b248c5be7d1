"""The base class of the models that make up the configuration of a tenant."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.dispatch import Signal

from tenants.times import format_utc

if TYPE_CHECKING:
    from tenants.models.tenant import Tenant

secret_reencrypted = Signal()
"""Sent with `row` in the transaction that encrypts its secret with another key, which the history omits."""


class ConfigurationModel(models.Model):
    """Base class that validates every save and increments `Tenant.version` with every change."""

    loaded_values: dict[str, Any] = {}
    """The values of the fields when the row was loaded, by `attname`; empty for a new row.

    During a save, those in the database before it.
    """

    derived_fields: ClassVar[dict[str, str]] = {}
    """The fields that `_prepare_fields` sets, by the name of the field with which they are written."""

    class Meta:
        abstract = True

    @transaction.atomic
    def save(self, *args: Any, validate: bool = True, **kwargs: Any) -> None:
        """Validate, save, and increment the version of the tenant. Raises ValidationError.

        A save is refused if a field that it writes was changed since the row was loaded: a form that was
        opened before a revocation does not undo it. Without `validate`, it is never refused.
        """
        tenant = self._tenant_queryset()
        # Lock the tenant: concurrent changes cannot invalidate what is validated here.
        tenant.select_for_update(no_key=True).first()
        unwritten = {"version"}  # incremented below
        if (written := kwargs.get("update_fields")) is not None:
            derived = (field for name, field in self.derived_fields.items() if name in written)
            kwargs["update_fields"] = written = {*written, *derived}
            unwritten |= {field.name for field in self._meta.concrete_fields} - written
        if not self._state.adding:
            self._load_unwritten_fields(unwritten, check_others=validate)
        if validate:
            self.full_clean(exclude=unwritten)
        self._prepare_fields(unwritten)
        super().save(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)
        self._record_loaded_values()

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        row = super().from_db(*args, **kwargs)
        row._record_loaded_values()  # noqa: SLF001 - an instance of this class
        return row

    def refresh_from_db(self, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(*args, **kwargs)
        self._record_loaded_values()

    def save_restriction(self, **changes: Any) -> None:
        """Save a change that only removes access. Skips validation so that revocation cannot fail."""
        for name, value in changes.items():
            setattr(self, name, value)
        self.save(validate=False, update_fields=list(changes))

    @transaction.atomic
    def _store_reencrypted(self, **encrypted: bytes | None) -> None:
        """Store a secret that is encrypted with another key, which is no change of the configuration."""
        rows: Any = type(self)._base_manager  # the fields of an abstract model are unknown to mypy
        rows.filter(pk=self.pk).update(**encrypted)
        secret_reencrypted.send(sender=type(self), row=self)

    def _prepare_fields(self, unwritten: set[str]) -> None:
        """Convert field values to their stored form. Called after validation; does nothing by default.

        `unwritten`: the names of the fields that this save does not write.
        """

    def _load_unwritten_fields(self, unwritten: set[str], *, check_others: bool) -> None:
        """Set the fields to their current database values, so that the row is validated as it will be.

        Raises ValidationError if `check_others` and another field was changed since the row was loaded.
        """
        rows: Any = type(self)._base_manager  # the fields of an abstract model are unknown to mypy
        stored = rows.values().get(pk=self.pk)
        for field in self._meta.concrete_fields:
            value = stored[field.attname]
            if field.name in unwritten:
                setattr(self, field.attname, value)
            elif check_others and value != self.loaded_values.get(field.attname, value):
                raise ValidationError(f"{describe_last_change(self)} Reload it, and make your change again.")
            self.loaded_values[field.attname] = value

    def _record_loaded_values(self) -> None:
        values = {field.attname: self.__dict__.get(field.attname) for field in self._meta.concrete_fields}
        # Copy mutable values, so that a change in place is detected.
        self.loaded_values = {
            name: copy.deepcopy(value) if isinstance(value, dict | list) else value
            for name, value in values.items()
        }

    @transaction.atomic
    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        tenant = self._tenant_queryset()
        tenant.select_for_update(no_key=True).first()
        deleted = super().delete(*args, **kwargs)
        tenant.update(version=models.F("version") + 1)
        return deleted

    def _tenant_queryset(self) -> models.QuerySet[Tenant]:
        tenant: Any = self._meta.get_field("tenant").related_model
        queryset: models.QuerySet[Tenant] = tenant.objects.filter(pk=self.tenant_id)  # type: ignore[attr-defined]
        return queryset


def get_last_change(row: Any) -> Any:
    """Return the last entry of the history of the row, or None. Its primary key is the version of the row."""
    return row.history.select_related("history_user").first()


def describe_last_change(row: Any) -> str:
    """Return who changed the row last, and when."""
    last = get_last_change(row)
    author = last and (last.history_user or last.history_change_reason or "a command")
    change = f" by {author} at {format_utc(last.history_date)}" if last else ""
    return f"Changed{change}."
