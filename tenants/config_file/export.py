"""Exports the configuration as a file that `apply` reads."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import yaml

from providers.registry import strategies
from tenants.models import Algorithm, Key, KeyState, ResourceServer, Service, SigningKey, Tenant
from tenants.models.editable_fields import editable_fields
from tenants.models.resource_server import SEPARATOR
from tenants.secrets.service_secrets import is_placeholder, select_secrets


def export(tenants: Iterable[Tenant], **sections: Any) -> str:
    """Return tenants with all that belongs to them as YAML, sorted by name, and then other `sections`.

    Public keys are written as they are. Each secret is replaced with a reference to an environment variable,
    which `apply` needs only if the secret is not stored yet. The variable of a key contains the secret in
    base64.
    """
    # Sorted in Python: the collation differs between databases.
    rows = sorted(tenants, key=lambda tenant: tenant.pk)
    document = {"tenants": [_dump_tenant(tenant) for tenant in rows], **sections}
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes strings so that they are read back unchanged."""


class _Block(str):
    """Lines of text, written as a literal block."""


_LINE_BREAK = re.compile("[\n\r\x85\u2028\u2029]")


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # YAML normalizes line breaks except in double quotes.
    quotes = '"' if _LINE_BREAK.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, quotes)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    _Block, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, "|")
)
_Dumper.add_representer(datetime, lambda dumper, time: _represent_text(dumper, time.isoformat()))


def _dump_tenant(tenant: Tenant) -> Mapping[str, Any]:
    services = sorted(Service.objects.for_tenant(tenant), key=lambda service: service.name)
    keys = sorted(Key.objects.for_tenant(tenant), key=lambda key: key.kid)
    resource_servers = sorted(ResourceServer.objects.for_tenant(tenant), key=lambda row: row.client_id)
    return {
        "id": tenant.pk,
        **_fields(tenant),
        **_signing_secret_reference(tenant),
        "services": [_dump_service(service) for service in services],
        "keys": [_dump_key(key) for key in keys],
        "resource_servers": [_dump_resource_server(row) for row in resource_servers],
    }


def _signing_secret_reference(tenant: Tenant) -> Mapping[str, Any]:
    """Return the reference to the secret of the active signing key, if the platform has this secret, too."""
    active = SigningKey.objects.for_tenant(tenant).filter(state=KeyState.ACTIVE)
    if tenant.signing_algorithm != Algorithm.HS256 or not active.filter(algorithm=Algorithm.HS256).exists():
        return {}
    variable = _variable_name(tenant.pk, "signing", "key", "secret")
    return {"signing_secret": {"env": variable, "encoding": "base64"}}


def _fields(row: Tenant | Service | Key | ResourceServer) -> dict[str, Any]:
    return {name: getattr(row, name) for name in editable_fields(type(row))}


def _dump_service(service: Service) -> Mapping[str, Any]:
    # Sort the members at every level: PostgreSQL and SQLite store them in different orders.
    settings = json.loads(json.dumps(service.settings, sort_keys=True))
    if isinstance(settings, dict):
        settings |= _secret_references(service)
    return {**_fields(service), "settings": settings}


def _secret_references(service: Service) -> dict[str, Any]:
    strategy = strategies().get(service.strategy)
    if strategy is None:  # the placeholders show which settings are secrets
        names = [name for name, value in service.settings.items() if is_placeholder(value)]
    else:
        names = list(select_secrets(strategy, service.settings))
    # Setting names contain underscores but no hyphens, so the replacement keeps them unambiguous.
    return {
        name: {"env": _variable_name(service.tenant_id, service.name, name.replace("_", "-"))}
        for name in names
    }


def _dump_key(key: Key) -> Mapping[str, Any]:
    fields = {name: value for name, value in _fields(key).items() if value is not None}
    if key.public_key:
        return {**fields, "public_key": _Block(key.public_key)}
    return {
        **fields,
        "secret": {"env": _variable_name(key.tenant_id, key.kid), "encoding": "base64"},
    }


def _dump_resource_server(row: ResourceServer) -> Mapping[str, Any]:
    own_part = row.client_id.partition(SEPARATOR)[2]
    return {
        "client_id": row.client_id,
        **_fields(row),
        "secret": {"env": _variable_name(row.tenant_id, "resource", "server", own_part)},
    }


_UNAMBIGUOUS = re.compile(r"[a-z0-9]++(-[a-z0-9]++)*+")


def _variable_name(*names: str) -> str:
    """Return the name of a variable, unique among the secrets of all tenants."""
    parts = ["AGS_SECRET", *(re.sub(r"[^A-Z0-9]", "_", name.upper()) for name in names)]
    if not all(_UNAMBIGUOUS.fullmatch(name) for name in names):
        # Upper-casing and replacing characters could produce the name of another secret.
        parts.append(hashlib.sha256("/".join(names).encode()).hexdigest()[:8].upper())
    return "__".join(parts)
