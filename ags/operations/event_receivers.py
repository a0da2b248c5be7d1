"""Records changes of the configuration and of staff users, and logins, in the audit trail."""

import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.models import User
from django.contrib.auth.signals import user_logged_in, user_logged_out, user_login_failed
from django.db.models import BinaryField
from django.db.models.signals import pre_save
from django.dispatch import receiver
from simple_history.signals import post_create_historical_record

from ags.limits.memory import LocalCounters
from ags.sessions.services.staff_events import (
    is_page,
    record_configuration_change,
    record_staff_action,
)
from providers.registry import strategies
from tenants.models import ConfigurationModel, Service
from tenants.models.configuration import secret_reencrypted
from tenants.secrets.service_secrets import is_placeholder, secret_names

REASONS = {"+": "add", "~": "change", "-": "delete"}
"""By the type of the history record."""

SET = "set"
CHANGED = "changed"
REENCRYPTED = "re-encrypted"
"""The values of a secret."""

USER_FIELDS = ("username", "first_name", "last_name", "email", "is_active", "is_staff", "is_superuser")

MAX_FAILED_LOGINS = 10
"""Failed logins that a process stores in a minute, so that a flood of them cannot fill the table."""

_failed_logins = LocalCounters(60)
_failed_logins_lock = threading.Lock()


# The configuration


@receiver(post_create_historical_record)
def record_history(instance: ConfigurationModel, history_instance: Any, **_: Any) -> None:
    """Store the change of the configuration that simple_history has just stored, in its transaction."""
    kind = history_instance.history_type
    # What is stored before a save, and the values that a deleted row had.
    old = {} if kind == "+" else instance.loaded_values
    names = [column.attname for column in instance._meta.concrete_fields]
    new = {} if kind == "-" else {name: getattr(instance, name) for name in names}
    before, after = _compare(_describe(instance, old), _describe(instance, new))
    if before or after:
        reason = REASONS[kind]
        record_configuration_change(
            instance, reason, None if kind == "+" else before, None if kind == "-" else after
        )


@receiver(secret_reencrypted)
def record_reencryption(row: ConfigurationModel, **_: Any) -> None:
    record_configuration_change(row, "reencrypt", {"secret": SET}, {"secret": REENCRYPTED})


@dataclass(frozen=True, slots=True)
class _Secret:
    """A secret that is compared, and never shown."""

    stored: Any = field(repr=False)


def _describe(row: ConfigurationModel, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values to compare, by field name: all but those of the primary key and the tenant."""
    described: dict[str, Any] = {}
    columns: Any = row._meta.concrete_fields
    for column in columns:
        value = values.get(column.attname)
        if isinstance(column, BinaryField):  # all of them are encrypted secrets, or hashes of secrets
            described["secret"] = _Secret(bytes(value)) if value else None
        elif not column.primary_key and column.name not in {"tenant", "version"}:
            described[column.name] = value
    if isinstance(row, Service) and isinstance(described["settings"], dict):
        described["settings"] = _hide_secrets(described["settings"], row.strategy)
    return described


def _hide_secrets(settings: dict[str, Any], slug: str) -> dict[str, Any]:
    """Hide the secrets: placeholders, and the plain text of settings that became secrets later."""
    strategy = strategies().get(slug)
    names: Collection[str] = settings if strategy is None else secret_names(strategy)
    return {
        name: _Secret(value) if value and (name in names or is_placeholder(value)) else value
        for name, value in settings.items()
    }


def _compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that differ, as JSON. A value that is missing is None."""
    before: dict[str, Any] = {}
    after: dict[str, Any] = {}
    for name in sorted({*old, *new}):
        was, is_now = old.get(name), new.get(name)
        if was == is_now:
            continue
        if isinstance(was, dict | None) and isinstance(is_now, dict | None):
            before[name], after[name] = _compare(was or {}, is_now or {})
        elif isinstance(was, _Secret) and isinstance(is_now, _Secret):
            before[name], after[name] = SET, CHANGED
        else:
            before[name], after[name] = _to_json(was), _to_json(is_now)
    return before, after


def _to_json(value: Any) -> Any:
    if isinstance(value, _Secret):
        return SET
    return value.isoformat() if isinstance(value, datetime) else value


# Staff users


@receiver(user_logged_in)
def record_login(user: User, **_: Any) -> None:
    if is_page():
        record_staff_action(user, "login")


@receiver(user_logged_out)
def record_logout(user: User | None, **_: Any) -> None:
    if user is not None and is_page():
        record_staff_action(user, "logout")


@receiver(user_login_failed)
def record_failed_login(credentials: Mapping[str, Any], **_: Any) -> None:
    """Store the user name only if it exists: a person may enter a password in its place."""
    if not is_page():
        return
    with _failed_logins_lock:
        count, _remaining = _failed_logins.count(())
    if count <= MAX_FAILED_LOGINS:
        user = User.objects.filter(username=credentials.get("username")).first()
        record_staff_action(user or User(), "login_failed")


@receiver(pre_save, sender=User)
def record_user(instance: User, raw: bool, update_fields: Any, **_: Any) -> None:
    """Store which fields of a user change, by the admin or a command.

    Before the change: a command makes it without a transaction, and then its event must not be missing.
    """
    # The time of each login, and the hash that Django replaces at a login when its parameters are outdated.
    if raw or update_fields in (frozenset({"last_login"}), frozenset({"password"})):
        return
    adding = instance._state.adding
    old = None if adding else User.objects.filter(pk=instance.pk).first()
    before, after = _compare(_describe_user(old), _describe_user(instance))
    if before or after:
        record_staff_action(instance, "add" if adding else "change", None if adding else before, after)


def _describe_user(user: User | None) -> dict[str, Any]:
    if user is None:
        return {}
    secret = _Secret(user.password) if user.has_usable_password() else None
    return {name: getattr(user, name) for name in USER_FIELDS} | {"password": secret}
