"""System checks of the stored configuration: tenants, services and keys that requests cannot use."""

from collections.abc import Iterator, Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.utils import OperationalError, ProgrammingError

from providers.contract import KeyKind, SecretField
from providers.registry import strategies
from tenants.models import Key, KeyState, Service, SigningKey, Tenant
from tenants.rotation import tenants_without_standby
from tenants.secrets import key_material
from tenants.secrets.encryption import DecryptionFailed
from tenants.services.settings import clean_settings
from tenants.whitespace import strip_whitespace


@register(Tags.database)
def check_stored_configuration(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Validate every tenant, enabled service and unrevoked key by the rules of this version."""
    if not databases or "default" not in databases:
        return []
    try:
        if Key._meta.db_table not in connections["default"].introspection.table_names():
            return []
        return [
            *_check_tenants(),
            *_check_services(),
            *_check_keys(),
            *_check_signing_keys(),
            *_check_standby_keys(),
        ]
    except (OperationalError, ProgrammingError):
        # The database is unavailable or not fully migrated, which /readyz and migrate report.
        return []


@register(Tags.security, deploy=True)
def check_stored_configuration_on_deploy(
    databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Run the same checks in `check --deploy` without `--database`."""
    return [] if databases else check_stored_configuration(["default"])


def _check_tenants() -> Iterator[CheckMessage]:
    for tenant in Tenant.objects.order_by("pk").iterator():
        try:
            tenant.clean_fields()
        except ValidationError as problem:
            for name, errors in problem.message_dict.items():
                yield Warning(
                    f"tenant {tenant.pk!r}: {name}: {'; '.join(errors)}",
                    hint="It still works, but must be corrected before the tenant can be changed.",
                    id="tenants.W004",
                )


def _check_services() -> Iterator[CheckMessage]:
    for service in Service.unscoped.filter(enabled=True).order_by("tenant", "name").iterator():
        location = f"tenant {service.tenant_id!r}, service {service.name!r}"
        strategy = strategies().get(service.strategy)
        if strategy is None:
            yield Warning(
                f"{location}: not offered: the provider {service.strategy!r} is not installed.",
                hint="Add its app to AGS_PROVIDERS, or disable the service.",
                id="tenants.W001",
            )
            continue
        try:
            secrets = service.secrets()
            clean_settings(strategy, service.settings_with_secrets())
            for name, secret in secrets.items():
                field = strategy.Settings.base_fields.get(name)
                # Multi-line secrets may end with a line break.
                is_single_line = isinstance(field, SecretField) and not field.multiline
                if is_single_line and strip_whitespace(secret) != secret:
                    yield _surrounding_whitespace(f"{location}, {name}")
        except DecryptionFailed:
            yield _decryption_failed(location)
        except ValidationError as problem:
            yield Warning(f"{location}: not offered: {'; '.join(problem.messages)}", id="tenants.W002")


def _surrounding_whitespace(location: str) -> CheckMessage:
    return Info(
        f"{location}: the secret begins or ends with white space, and is used unchanged.",
        hint="`apply` strips white space from secrets: see docs/upgrading.md.",
        id="tenants.I001",
    )


def _check_signing_keys() -> Iterator[CheckMessage]:
    for key in SigningKey.unscoped.exclude(state=KeyState.REVOKED).order_by("tenant", "kid").iterator():
        try:
            key.secret()
        except DecryptionFailed:
            yield _decryption_failed(f"tenant {key.tenant_id!r}, signing key {key.kid!r}")


def _check_standby_keys() -> Iterator[CheckMessage]:
    for tenant in tenants_without_standby().order_by("pk").iterator():
        yield Warning(
            f"tenant {tenant.pk!r}: no standby signing key is published.",
            hint="Publish one, so that services accept new tokens at once if the active key is revoked: "
            f"manage.py rotate_signing_key {tenant.pk}",
            id="tenants.W005",
        )


def _decryption_failed(location: str) -> CheckMessage:
    return Error(
        f"{location}: none of the {len(settings.AGS_ENCRYPTION_KEYS)} encryption keys decrypts the secret.",
        hint="AGS_ENCRYPTION_KEYS must contain the key with which it was encrypted.",
        id="tenants.E001",
    )


def _check_keys() -> Iterator[CheckMessage]:
    for key in Key.unscoped.exclude(state=KeyState.REVOKED).order_by("tenant", "kid").iterator():
        location = f"tenant {key.tenant_id!r}, key {key.kid!r}"
        try:
            if key.kind is KeyKind.PUBLIC_KEY:
                key_material.normalize_public_key(key.public_key, key.kid, key.algorithm)
                continue
            secret = key.secret()
            key_material.validate(secret, key.algorithm)
            if key_material.has_surrounding_whitespace(secret):
                yield _surrounding_whitespace(location)
        except DecryptionFailed:
            yield _decryption_failed(location)
        except ValidationError as problem:
            yield Warning(f"{location}: {'; '.join(problem.messages)}", id="tenants.W003")
