"""Making the database say what a file says: all of it, or nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import transaction

from providers.jose import HMAC_BYTES
from providers.registry import strategies
from tenants.config_file.schema import Entry, KeyEntry, TenantEntry
from tenants.config_file.secret_refs import Reference, located_at, reference, resolve
from tenants.config_file.yaml_loader import ConfigurationError
from tenants.models import Key, Service, Tenant
from tenants.secrets import key_material
from tenants.secrets.encryption import DecryptionFailed
from tenants.secrets.settings import is_placeholder, secret_names
from tenants.whitespace import strip_values, strip_whitespace


def apply(tenants: list[TenantEntry], folder: Path, *, dry_run: bool = False) -> list[str]:
    """Apply the file, and return a line for each change.

    Paths of secrets are relative to `folder`. What the database has and the file does not mention is left
    alone. Raises ConfigurationError, and has then changed nothing.
    """
    changes: list[str] = []
    with transaction.atomic():
        # What is compared stays so until the end. In one order, so that no two wait for each other.
        known = Tenant.objects.filter(pk__in=[entry.name for entry in tenants])
        list(known.select_for_update(no_key=True).order_by("pk"))
        for entry in tenants:
            tenant = _apply_tenant(entry, changes)
            for service in entry.services:
                _apply_service(service, tenant, folder, changes)
            for key in entry.keys:
                _apply_key(key, tenant, folder, changes)
        transaction.set_rollback(dry_run)
    return changes


def _apply_tenant(entry: TenantEntry, changes: list[str]) -> Tenant:
    tenant = Tenant.objects.filter(pk=entry.name).first() or Tenant(pk=entry.name)
    _store(tenant, entry, entry.given, f"tenant {entry.name}", changes)
    return tenant


def _apply_service(entry: Entry, tenant: Tenant, folder: Path, changes: list[str]) -> None:
    given = dict(entry.given)
    service = Service.objects.for_tenant(tenant).filter(name=entry.name).first()
    if service is None:
        service = Service(tenant=tenant, name=entry.name, strategy=given.get("strategy", ""))
    elif given.get("strategy", service.strategy) != service.strategy:
        raise ConfigurationError(
            f"{entry.path}.strategy", f"it never changes: this service has {service.strategy}"
        )
    strategy = strategies().get(service.strategy)
    stored = service.settings if isinstance(service.settings, dict) else {}
    secret = {*secret_names(strategy), *(name for name, value in stored.items() if is_placeholder(value))}
    shown = service.settings
    if "settings" in given:
        given["settings"] = _settings(entry, service, secret, folder)
        shown = service.with_placeholders(given["settings"])
        if shown == service.settings:
            del given["settings"]
    what = f"service {tenant.pk}/{entry.name}"
    _store(service, entry, given, what, changes, shown={"settings": shown}, secret=secret)


def _settings(entry: Entry, service: Service, secret: Collection[str], folder: Path) -> dict[str, Any]:
    """Return the settings of the file as they are stored, but with the secrets that it gives in the clear."""
    given: dict[str, Any] = strip_values(entry.given["settings"])
    stored = service.settings if isinstance(service.settings, dict) else {}
    told = {
        name: _secret_setting(value, f"{entry.path}.settings.{name}", stored.get(name), folder)
        for name, value in given.items()
        if name in secret
    }
    settings = given | told
    strategy = strategies().get(service.strategy)
    if strategy is None or service.with_placeholders(settings) == service.settings:
        # What is stored already is not judged again, so that a disabled service whose provider moved on can
        # stay.
        return settings
    # With the defaults filled in, as they are stored: otherwise they would differ each time.
    enabled = entry.given.get("enabled", service.enabled)
    with _located(entry):
        return service.clean_settings(strategy, settings, enabled=enabled)


def _secret_setting(value: Any, path: str, stored: Any, folder: Path) -> Any:
    """Return the text, or what is stored where the variable is not set here."""
    if value is None or isinstance(value, str):
        return value
    where = reference(value, path)
    secret = resolve(where, folder)
    if secret is None:
        if not stored:
            raise ConfigurationError(f"{path}.env", f"the variable {where.value} is not set")
        return stored
    try:
        return secret.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(path, "is not UTF-8 text once it is decoded") from None


def _apply_key(entry: KeyEntry, tenant: Tenant, folder: Path, changes: list[str]) -> None:
    what = f"key {tenant.pk}/{entry.name}"
    given = dict(entry.given)
    algorithm = given.pop("algorithm", None)
    key = Key.objects.for_tenant(tenant).filter(kid=entry.name).first()
    if key is None:
        key = Key(tenant=tenant, kid=entry.name, algorithm=algorithm or "HS256")
        if key.algorithm not in HMAC_BYTES:
            raise ConfigurationError(f"{entry.path}.algorithm", f"must be one of {', '.join(HMAC_BYTES)}")
        if entry.secret is None:
            raise ConfigurationError(f"{entry.path}.secret", "missing")
        secret = resolve(entry.secret, folder)
        if secret is None:
            raise ConfigurationError(
                f"{entry.secret.path}.env", f"the variable {entry.secret.value} is not set"
            )
        with located_at(entry.secret.path):
            key.set_secret(secret)
    else:
        if algorithm not in (None, key.algorithm):
            raise ConfigurationError(
                f"{entry.path}.algorithm", f"it never changes: this key has {key.algorithm}"
            )
        if entry.secret is not None:
            _compare(key, entry.secret, folder)
    _store(key, entry, given, what, changes)


def _compare(key: Key, reference: Reference, folder: Path) -> None:
    """Refuse another secret for a key that exists. A variable that is not set here is not compared."""
    secret = resolve(reference, folder)
    if secret is None:
        return
    try:
        stored = key.secret()
    except DecryptionFailed:
        raise ConfigurationError(reference.path, "no encryption key opens the stored secret") from None
    if key_material.has_white_space_around(stored) and strip_whitespace(stored.decode()).encode() == secret:
        raise ConfigurationError(
            reference.path,
            "the stored secret has white space around this one: give it in base64, "
            "or make a new key (docs/upgrading.md)",
        )
    if secret != stored:
        raise ConfigurationError(reference.path, "another secret than this key has: rotation is a new key")


def _store(
    row: Tenant | Service | Key,
    entry: Entry,
    given: Mapping[str, Any],
    what: str,
    changes: list[str],
    *,
    shown: Mapping[str, Any] = MappingProxyType({}),
    secret: Collection[str] = (),
) -> None:
    """Save what differs, and say so; of a member named in `secret` that it was changed, and no more.

    `shown` is what is said in place of what is given.
    """
    new = row._state.adding
    differing = {name: value for name, value in given.items() if new or getattr(row, name) != value}
    if not new and not differing:
        return
    told = [
        line
        for name, value in differing.items()
        for line in _difference(name, getattr(row, name), shown.get(name, value), secret)
    ]
    for name, value in differing.items():
        setattr(row, name, value)
    with _located(entry):
        row.save()
    changes.append(f"+ {what}" if new else f"~ {what}: {', '.join(told)}")


def _difference(name: str, before: Any, after: Any, secret: Collection[str]) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for member in sorted(before.keys() | after.keys()):
            if before.get(member) == after.get(member):
                continue
            if member in secret:
                yield f"{name}.{member} changed"
            else:
                yield f"{name}.{member} {_told(before.get(member))} -> {_told(after.get(member))}"
    else:
        yield f"{name} {_told(before)} -> {_told(after)}"


def _told(value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case datetime():
            return value.isoformat()
        case None:
            return "none"
        case _:
            return str(value)


@contextmanager
def _located(entry: Entry) -> Iterator[None]:
    """Say of what the models refuse where it stands in the file."""
    try:
        yield
    except ValidationError as problem:
        name, messages = next(iter(problem.message_dict.items()))
        message = messages[0]
        # A message on the settings begins with the name of the setting.
        setting = re.match(r"(\w++): ", message) if name == "settings" else None
        if setting:
            raise ConfigurationError(
                f"{entry.path}.settings.{setting[1]}", message[setting.end() :]
            ) from None
        where = entry.path if name == NON_FIELD_ERRORS else f"{entry.path}.{name}"
        raise ConfigurationError(where, message) from None
