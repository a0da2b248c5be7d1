"""The schema of a configuration file: its entries, their members and the types of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from tenants.config_file.secret_refs import SecretReference, parse_reference
from tenants.config_file.yaml_loader import ConfigurationError, join_path, parse_yaml
from tenants.whitespace import strip_whitespace


@dataclass(frozen=True, slots=True)
class Entry:
    """A tenant, service or key. `path`: its location in the file. `fields`: its members except for `name`."""

    path: str
    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyEntry(Entry):
    """A key, and the reference to its secret, if the file has one."""

    secret: SecretReference | None = None


@dataclass(frozen=True, slots=True)
class TenantEntry(Entry):
    """A tenant with its services and keys."""

    services: tuple[Entry, ...] = ()
    keys: tuple[KeyEntry, ...] = ()


def parse_tenants(raw: bytes) -> list[TenantEntry]:
    """Parse a configuration file and check the types of its members. Raises ConfigurationError."""
    document = _mapping(parse_yaml(raw), "")
    _check_names(document, {"tenants"}, "")
    if "tenants" not in document:
        raise ConfigurationError("tenants", "missing")
    return _parse_entries(document["tenants"], "tenants", "id", _parse_tenant)


def _parse_tenant(path: str, name: str, members: dict[str, Any]) -> TenantEntry:
    services = _parse_entries(members.pop("services", []), f"{path}.services", "name", _parse_service)
    keys = _parse_entries(members.pop("keys", []), f"{path}.keys", "kid", _parse_key)
    fields = _parse_fields(members, path, _TENANT_TYPES, other_names={"id", "services", "keys"})
    return TenantEntry(path, name, fields, tuple(services), tuple(keys))


def _parse_service(path: str, name: str, members: dict[str, Any]) -> Entry:
    types: _Types = {
        "strategy": _text,
        "display_name": _text,
        "logo": _text,
        "enabled": _boolean,
        "settings": _mapping,
    }
    return Entry(path, name, _parse_fields(members, path, types, other_names={"name"}))


def _parse_key(path: str, name: str, members: dict[str, Any]) -> KeyEntry:
    secret = parse_reference(members.pop("secret"), f"{path}.secret") if "secret" in members else None
    types: _Types = {"algorithm": _text, "state": _text, "not_before": _datetime, "not_after": _datetime}
    fields = _parse_fields(members, path, types, other_names={"kid", "secret"})
    return KeyEntry(path, name, fields, secret)


_E = TypeVar("_E", bound=Entry)
_Types = dict[str, Callable[[Any, str], Any]]


def _parse_entries(
    value: Any, path: str, name_member: str, parse_entry: Callable[[str, str, dict[str, Any]], _E]
) -> list[_E]:
    """Parse a list of mappings. `name_member` is the member that identifies an entry."""
    entries: dict[str, _E] = {}
    for index, member in enumerate(_list(value, path)):
        entry_path = f"{path}[{index}]"
        name_path = f"{entry_path}.{name_member}"
        members = dict(_mapping(member, entry_path))
        if name_member not in members:
            raise ConfigurationError(name_path, "missing")
        name = _text(members.pop(name_member), name_path)
        if name in entries:
            raise ConfigurationError(name_path, f"duplicate of {entries[name].path}.{name_member}")
        entries[name] = parse_entry(entry_path, name, members)
    return list(entries.values())


def _parse_fields(members: dict[str, Any], path: str, types: _Types, other_names: set[str]) -> dict[str, Any]:
    """Convert the members by `types`. `other_names` are allowed too, and listed in the error message."""
    _check_names(members, types.keys() | other_names, path)
    return {name: types[name](value, join_path(path, name)) for name, value in members.items()}


def _check_names(members: Mapping[str, Any], names: set[str], path: str) -> None:
    if unknown := sorted(members.keys() - names):
        raise ConfigurationError(
            join_path(path, unknown[0]), f"unknown member; must be one of {', '.join(sorted(names))}"
        )


def _mapping(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(path or "file", "must be a mapping")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(path, "must be a string; quote it if YAML reads it as another type")
    return strip_whitespace(value)


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(path, "must be true or false")
    return value


def _datetime(value: Any, path: str) -> datetime | None:
    if value is None:
        return None
    try:
        parsed = datetime.fromisoformat(_text(value, path))
        if parsed.tzinfo is None:
            raise ValueError
        return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            path, "must be an ISO 8601 date and time with a UTC offset, e.g. 2026-01-31T08:00:00Z, or null"
        ) from None


def _integer(value: Any, path: str) -> int:
    if type(value) is not int:
        raise ConfigurationError(path, "must be an integer")
    return value


def _integer_or_none(value: Any, path: str) -> int | None:
    return None if value is None else _integer(value, path)


def _list(value: Any, path: str) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigurationError(path, "must be a list")
    return value


def _text_list(value: Any, path: str) -> list[str]:
    return [_text(member, f"{path}[{index}]") for index, member in enumerate(_list(value, path))]


_TENANT_TYPES: _Types = {
    "name": _text,
    "enabled": _boolean,
    "device_limit": _integer_or_none,
    "access_token_ttl": _integer,
    "refresh_token_ttl": _integer,
    "sign_on_ttl": _integer,
    "refresh_grace": _integer,
    "signing_algorithm": _text,
    "issuer": _text,
    "audience": _text,
    "allowed_origins": _text_list,
}
