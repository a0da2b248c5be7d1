"""Writing the file that `apply` would find nothing to do about."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from providers.registry import strategies
from tenants.models import Key, Service, Tenant
from tenants.secrets.settings import is_placeholder, secrets_of


def export(tenants: Iterable[Tenant]) -> str:
    """Return tenants with their services and keys as YAML, in the order of their names.

    A secret is left out: in its place stands the name of a variable. Where the key or the setting exists, it
    may stay unset; elsewhere it must hold the secret, that of a key in base64.
    """
    # Sorted here: each database has an order of letters of its own.
    document = {"tenants": [_tenant(tenant) for tenant in sorted(tenants, key=lambda tenant: tenant.pk)]}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes text so that it is read as it was."""


_BREAK = re.compile("[\n\r\x85\u2028\u2029]")


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Between other quotes, and in a block, YAML takes one break of lines for another.
    quotes = '"' if _BREAK.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, quotes)


_Dumper.add_representer(str, _text)


def _tenant(tenant: Tenant) -> Mapping[str, Any]:
    services = sorted(Service.objects.for_tenant(tenant), key=lambda service: service.name)
    keys = sorted(Key.objects.for_tenant(tenant), key=lambda key: key.kid)
    return {
        "id": tenant.pk,
        **_fields(tenant, _TENANT),
        "services": [_service(service) for service in services],
        "keys": [_key(key) for key in keys],
    }


_TENANT = (
    "name",
    "enabled",
    "device_limit",
    "access_token_ttl",
    "refresh_token_ttl",
    "sign_on_ttl",
    "refresh_grace",
    "signing_algorithm",
    "issuer",
    "audience",
    "allowed_origins",
)
_SERVICE = ("name", "strategy", "display_name", "logo", "enabled")
_KEY = ("kid", "algorithm", "state")


def _fields(row: Tenant | Service | Key, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names}


def _service(service: Service) -> Mapping[str, Any]:
    # In one order at every level: PostgreSQL keeps another than SQLite.
    settings = json.loads(json.dumps(service.settings, sort_keys=True))
    if isinstance(settings, dict):
        settings |= _references(service)
    return {**_fields(service, _SERVICE), "settings": settings}


def _references(service: Service) -> dict[str, Any]:
    strategy = strategies().get(service.strategy)
    if strategy is None:  # what was a secret stays one
        names = [name for name, value in service.settings.items() if is_placeholder(value)]
    else:
        names = list(secrets_of(strategy, service.settings))
    # Names of settings have no hyphens, and most of them underscores.
    return {
        name: {"env": _variable(service.tenant_id, service.name, name.replace("_", "-"))} for name in names
    }


def _key(key: Key) -> Mapping[str, Any]:
    dates = {"not_before": key.not_before, "not_after": key.not_after}
    return {
        **_fields(key, _KEY),
        **{name: moment.isoformat() for name, moment in dates.items() if moment is not None},
        "secret": {"env": _variable(key.tenant_id, key.kid), "encoding": "base64"},
    }


_PLAIN = re.compile(r"[a-z0-9]++(-[a-z0-9]++)*+")


def _variable(*names: str) -> str:
    """Return a name that no other secret has, whatever is exported together."""
    parts = ["AGS_SECRET", *(re.sub(r"[^A-Z0-9]", "_", name.upper()) for name in names)]
    if not all(_PLAIN.fullmatch(name) for name in names):
        # Letters and signs that a variable cannot tell apart.
        parts.append(hashlib.sha256("/".join(names).encode()).hexdigest()[:8].upper())
    return "__".join(parts)
