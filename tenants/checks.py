"""System checks of what is stored: settings, services and keys that requests could not use."""

from collections.abc import Sequence
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.core.exceptions import ValidationError
from django.db import connections
from django.db.utils import OperationalError, ProgrammingError

from providers.contract import SecretField, Strategy
from providers.registry import strategies
from tenants.models import Key, KeyState, Service, SigningKey, Tenant
from tenants.secrets import key_material
from tenants.secrets.encryption import DecryptionFailed
from tenants.services.settings import clean_settings
from tenants.whitespace import strip_whitespace


@register(Tags.database)
def check_stored(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Judge by the rules of this version every tenant, enabled service, and key that may come into force."""
    if not databases or "default" not in databases:
        return []
    try:
        if Key._meta.db_table not in connections["default"].introspection.table_names():
            return []
        return [*_tenants(), *_services(), *_keys(), *_signing_keys()]
    except (OperationalError, ProgrammingError):
        # Away, or between two migrations: /readyz and migrate tell that better.
        return []


@register(Tags.security, deploy=True)
def check_stored_too(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Let `check --deploy` read what is stored without being told of the database."""
    return [] if databases else check_stored(["default"])


def _tenants() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for tenant in Tenant.objects.order_by("pk").iterator():
        try:
            tenant.clean_fields()
        except ValidationError as problem:
            found += [
                Warning(
                    f"tenant {tenant.pk!r}: {name}: {'; '.join(messages)}",
                    hint="It works as it is stored. It must be corrected with the next change of the tenant.",
                    id="tenants.W004",
                )
                for name, messages in problem.message_dict.items()
            ]
    return found


def _services() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for service in Service.unscoped.filter(enabled=True).order_by("tenant", "name").iterator():
        where = f"tenant {service.tenant_id!r}, service {service.name!r}"
        strategy = strategies().get(service.strategy)
        if strategy is None:
            found.append(
                Warning(
                    f"{where}: the provider {service.strategy!r} is not installed, so it is not offered.",
                    hint="Add its app to AGS_PROVIDERS, or disable the service.",
                    id="tenants.W001",
                )
            )
            continue
        try:
            secrets = service.secrets()
            clean_settings(strategy, service.settings_with_secrets())
            found += [
                _white_space(f"{where}, {name}")
                for name, text in secrets.items()
                if name in _single_line_secrets(strategy) and strip_whitespace(text) != text
            ]
        except DecryptionFailed:
            found.append(_decryption_failed(where))
        except ValidationError as problem:
            found.append(Warning(f"{where}: not offered: {'; '.join(problem.messages)}", id="tenants.W002"))
    return found


def _single_line_secrets(strategy: Strategy) -> set[str]:
    """Return the secret settings of one line: the others end as a file does."""
    declared = strategy.Settings.base_fields
    return {
        name for name, field in declared.items() if isinstance(field, SecretField) and not field.multiline
    }


def _white_space(where: str) -> CheckMessage:
    return Info(
        f"{where}: there is white space around the secret. It is used as it is.",
        hint="`apply` reads a secret without it: see docs/upgrading.md.",
        id="tenants.I001",
    )


def _signing_keys() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for key in SigningKey.unscoped.exclude(state=KeyState.REVOKED).order_by("tenant", "kid").iterator():
        try:
            key.secret()
        except DecryptionFailed:
            found.append(_decryption_failed(f"tenant {key.tenant_id!r}, signing key {key.kid!r}"))
    return found


def _decryption_failed(where: str) -> CheckMessage:
    return Error(
        f"{where}: none of the {len(settings.AGS_ENCRYPTION_KEYS)} encryption keys opens it.",
        hint="AGS_ENCRYPTION_KEYS must hold the key it was stored under.",
        id="tenants.E001",
    )


def _keys() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for key in Key.unscoped.exclude(state=KeyState.REVOKED).order_by("tenant", "kid").iterator():
        where = f"tenant {key.tenant_id!r}, key {key.kid!r}"
        try:
            secret = key.secret()
            key_material.check(secret, key.algorithm)
            if key_material.has_white_space_around(secret):
                found.append(_white_space(where))
        except DecryptionFailed:
            found.append(_decryption_failed(where))
        except ValidationError as problem:
            found.append(Warning(f"{where}: {'; '.join(problem.messages)}", id="tenants.W003"))
    return found
