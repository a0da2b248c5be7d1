"""Applies a configuration file to the database, in one transaction."""

import hmac
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from django.db import transaction

from providers.contract import KeyKind
from providers.registry import strategies
from tenants.config_file.schema import Entry, parse_reference
from tenants.config_file.secret_refs import SecretReference, VariableNotSet, error_location, resolve
from tenants.config_file.yaml_loader import ConfigurationError
from tenants.models import Algorithm, Key, KeyState, ResourceServer, Service, SigningKey, Tenant
from tenants.models.key import ALGORITHMS
from tenants.models.resource_server import hash_client_secret
from tenants.secrets import key_material
from tenants.secrets.encryption import DecryptionFailed
from tenants.secrets.service_secrets import is_placeholder, secret_names
from tenants.services.settings import StoredSettings
from tenants.whitespace import strip_values, strip_whitespace

AUTHOR = "manage.py apply"
"""Who has changed a row, for a form that is refused because of that change."""


def apply(tenants: Sequence[Entry], folder: Path) -> list[str]:
    """Apply the entries of a file, and return a line for each change.

    Paths of secret files are relative to `folder`. Rows and fields that are not in the file are not changed.
    Raises ConfigurationError, and then changes nothing.
    """
    changes: list[str] = []
    with transaction.atomic():
        # Lock the tenants, so that what is compared does not change. Sorted, to avoid deadlocks.
        rows = Tenant.objects.filter(pk__in=[entry.name for entry in tenants]).order_by("pk")
        existing = {row.pk: row for row in rows.select_for_update(no_key=True)}
        for entry in tenants:
            tenant = existing.get(entry.name) or Tenant(pk=entry.name)
            options = _check_signing_secret(entry, tenant, folder)
            _save_changes(tenant, entry, entry.fields, f"tenant {entry.name}", changes, save_options=options)
            for service in entry.services:
                _apply_service(service, tenant, folder, changes)
            for key in entry.keys:
                _apply_key(key, tenant, folder, changes)
            for resource_server in entry.resource_servers:
                _apply_resource_server(resource_server, tenant, folder, changes)
    return changes


def _check_signing_secret(entry: Entry, tenant: Tenant, folder: Path) -> Mapping[str, bytes]:
    """Return the secret of the first signing key for `Tenant.save`; compare that of an existing tenant.

    A signing key is never changed here: its rotation has steps that must not be skipped.
    """
    path = f"{entry.path}.signing_secret"
    if entry.secret is None:
        return {}
    if entry.fields.get("signing_algorithm", tenant.signing_algorithm) != Algorithm.HS256:
        raise ConfigurationError(path, "accepted with signing_algorithm HS256 only")
    try:
        secret = resolve(entry.secret, path, folder)
    except VariableNotSet:
        if tenant._state.adding:
            raise
        return {}
    with error_location(path):
        key_material.validate(secret, Algorithm.HS256)
    if tenant._state.adding:
        return {"signing_secret": secret}
    keys = SigningKey.objects.for_tenant(tenant).filter(algorithm=Algorithm.HS256)
    try:
        stored = [key.secret() for key in keys.exclude(state=KeyState.REVOKED)]
    except DecryptionFailed:
        raise ConfigurationError(path, "the stored secret cannot be decrypted") from None
    if not any(hmac.compare_digest(secret, other) for other in stored):
        raise ConfigurationError(
            path, "differs from the stored secret: rotate with manage.py rotate_signing_key --secret-env"
        )
    return {}


def _apply_service(entry: Entry, tenant: Tenant, folder: Path, changes: list[str]) -> None:
    fields = dict(entry.fields)
    service = Service.objects.for_tenant(tenant).filter(name=entry.name).first()
    if service is None:
        service = Service(tenant=tenant, name=entry.name, strategy=fields.get("strategy", ""))
    elif fields.get("strategy", service.strategy) != service.strategy:
        raise ConfigurationError(
            f"{entry.path}.strategy", f"cannot be changed: this service uses {service.strategy}"
        )
    strategy = strategies().get(service.strategy)
    stored = service.settings if isinstance(service.settings, dict) else {}
    secrets = {*secret_names(strategy), *(name for name, value in stored.items() if is_placeholder(value))}
    redacted = service.settings
    if "settings" in fields:
        current = service.stored_settings()
        fields["settings"] = _resolve_settings(entry, service, current, secrets, folder)
        redacted = current.redact(fields["settings"])
        if redacted == service.settings:
            del fields["settings"]
    label = f"service {tenant.pk}/{entry.name}"
    _save_changes(service, entry, fields, label, changes, redacted={"settings": redacted}, secrets=secrets)


def _resolve_settings(
    entry: Entry, service: Service, current: StoredSettings, secrets: Collection[str], folder: Path
) -> dict[str, Any]:
    """Return the settings to store, with references resolved to secrets in plain text."""
    in_file: dict[str, Any] = strip_values(entry.fields["settings"])
    stored = service.settings if isinstance(service.settings, dict) else {}
    settings = in_file | {
        name: _resolve_secret_setting(value, f"{entry.path}.settings.{name}", stored.get(name), folder)
        for name, value in in_file.items()
        if name in secrets
    }
    if current.redact(settings) == service.settings:
        # Unchanged settings are not validated, so that a disabled service can keep settings that have become
        # invalid.
        return settings
    # Fill in the defaults, as they are stored: otherwise every run would find a difference.
    enabled = entry.fields.get("enabled", service.enabled)
    with error_location(entry.path):
        return current.clean(settings, enabled=enabled)


def _resolve_secret_setting(value: Any, path: str, stored: Any, folder: Path) -> Any:
    """Return the secret in plain text, or `stored` if the environment variable is not set."""
    if value is None or isinstance(value, str):
        return value
    try:
        return _resolve_text(parse_reference(value, path), path, folder)
    except VariableNotSet:
        if not stored:
            raise
        return stored


def _apply_key(entry: Entry, tenant: Tenant, folder: Path, changes: list[str]) -> None:
    fields = dict(entry.fields)
    algorithm = fields.pop("algorithm", None)
    key = Key.objects.for_tenant(tenant).filter(kid=entry.name).first()
    if key is None:
        key = Key(tenant=tenant, kid=entry.name, algorithm=algorithm or "HS256")
        if key.algorithm not in ALGORITHMS:
            raise ConfigurationError(f"{entry.path}.algorithm", f"must be one of {', '.join(ALGORITHMS)}")
        _check_kind(key, entry, is_required=True)
        if entry.public_key is not None:
            with error_location(f"{entry.path}.public_key"):
                key.set_public_key(entry.public_key)
        elif entry.secret is not None:
            secret = resolve(entry.secret, f"{entry.path}.secret", folder)
            with error_location(f"{entry.path}.secret"):
                key.set_secret(secret)
    else:
        if algorithm not in (None, key.algorithm):
            raise ConfigurationError(
                f"{entry.path}.algorithm", f"cannot be changed: this key uses {key.algorithm}"
            )
        _check_kind(key, entry, is_required=False)
        if entry.public_key is not None:
            _check_public_key_unchanged(key, entry.public_key, f"{entry.path}.public_key")
        if entry.secret is not None:
            _check_secret_unchanged(key, entry.secret, f"{entry.path}.secret", folder)
    _save_changes(key, entry, fields, f"key {tenant.pk}/{entry.name}", changes)


def _check_kind(key: Key, entry: Entry, *, is_required: bool) -> None:
    """Require a public key or a secret, as the algorithm says, and reject the other one."""
    members = {"public_key": entry.public_key, "secret": entry.secret}
    if key.kind is KeyKind.SHARED_SECRET:
        members = dict(reversed(members.items()))
    own, other = members
    if members[other] is not None:
        raise ConfigurationError(
            f"{entry.path}.{other}", f"not accepted: {key.algorithm} needs the member {own} instead"
        )
    if is_required and members[own] is None:
        raise ConfigurationError(f"{entry.path}.{own}", "missing")


def _check_public_key_unchanged(key: Key, text: str, path: str) -> None:
    with error_location(path):
        public_key = key_material.normalize_public_key(text, key.kid, key.algorithm)
    if public_key != key.public_key:
        raise ConfigurationError(path, "differs from the stored public key: create a new key to rotate")


def _check_secret_unchanged(key: Key, reference: SecretReference, path: str, folder: Path) -> None:
    """Reject a different secret for an existing key. Ignores an environment variable that is not set."""
    try:
        secret = resolve(reference, path, folder)
        stored = key.secret()
    except VariableNotSet:
        return
    except DecryptionFailed:
        raise ConfigurationError(path, "the stored secret cannot be decrypted") from None
    if (
        key_material.has_surrounding_whitespace(stored)
        and strip_whitespace(stored.decode()).encode() == secret
    ):
        raise ConfigurationError(
            path,
            "the stored secret begins or ends with white space: give it in base64, "
            "or create a new key (docs/upgrading.md)",
        )
    if secret != stored:
        raise ConfigurationError(path, "differs from the stored secret: create a new key to rotate")


def _apply_resource_server(entry: Entry, tenant: Tenant, folder: Path, changes: list[str]) -> None:
    path = f"{entry.path}.secret"
    row = ResourceServer.objects.for_tenant(tenant).filter(client_id=entry.name).first()
    if row is None:
        if entry.secret is None:
            raise ConfigurationError(path, "missing")
        row = ResourceServer(tenant=tenant)
        secret = _resolve_text(entry.secret, path, folder)
        with error_location(entry.path):
            row.import_credentials(entry.name, secret)
    elif entry.secret is not None:
        try:
            secret_hash = hash_client_secret(_resolve_text(entry.secret, path, folder))
        except VariableNotSet:
            secret_hash = bytes(row.secret_hash)
        if not hmac.compare_digest(secret_hash, bytes(row.secret_hash)):
            raise ConfigurationError(
                path, "differs from the stored secret: add another resource server to replace it"
            )
    _save_changes(row, entry, entry.fields, f"resource server {entry.name}", changes)


def _resolve_text(reference: SecretReference, path: str, folder: Path) -> str:
    try:
        return resolve(reference, path, folder).decode()
    except UnicodeDecodeError:
        raise ConfigurationError(path, "the decoded value is not UTF-8 text") from None


def _save_changes(
    row: Tenant | Service | Key | ResourceServer,
    entry: Entry,
    fields: Mapping[str, Any],
    label: str,
    changes: list[str],
    *,
    redacted: Mapping[str, Any] = MappingProxyType({}),
    secrets: Collection[str] = (),
    save_options: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Save the fields that differ, and append a line to `changes`.

    The line shows `redacted` values instead of those of `fields`, and no values of members in `secrets`.
    """
    new = row._state.adding
    differing = {name: value for name, value in fields.items() if new or getattr(row, name) != value}
    if not new and not differing:
        return
    differences = [
        difference
        for name, value in differing.items()
        for difference in _describe_difference(name, getattr(row, name), redacted.get(name, value), secrets)
    ]
    for name, value in differing.items():
        setattr(row, name, value)
    row._change_reason = AUTHOR  # type: ignore[union-attr] # noqa: SLF001 - simple_history reads it
    with error_location(entry.path):
        row.save(**save_options)
    changes.append(f"+ {label}" if new else f"~ {label}: {', '.join(differences)}")


def _describe_difference(name: str, before: Any, after: Any, secrets: Collection[str]) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for member in sorted(before.keys() | after.keys()):
            old, new = before.get(member), after.get(member)
            if old != new and member in secrets:
                yield f"{name}.{member} changed"
            elif old != new:
                yield f"{name}.{member} {_format(old)} -> {_format(new)}"
    else:
        yield f"{name} {_format(before)} -> {_format(after)}"


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, datetime):
        return value.isoformat()
    return "none" if value is None else str(value)
