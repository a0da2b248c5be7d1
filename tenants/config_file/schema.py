"""The form of a configuration file: which members there are, of which type, and what each is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from tenants.config_file.secret_refs import Reference, reference
from tenants.config_file.yaml_loader import ConfigurationError, join_path, parse
from tenants.whitespace import strip_whitespace


@dataclass(frozen=True, slots=True)
class Entry:
    """A tenant, service or key: what it is known by, and the members that were given beside that."""

    path: str
    name: str
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyEntry(Entry):
    """A key, and the reference to its secret, if there was one."""

    secret: Reference | None = None


@dataclass(frozen=True, slots=True)
class TenantEntry(Entry):
    """A tenant with its services and keys."""

    services: tuple[Entry, ...] = ()
    keys: tuple[KeyEntry, ...] = ()


def read(raw: bytes) -> list[TenantEntry]:
    """Return what the file says, in its order, every member of the right type. Raises ConfigurationError."""
    top = _mapping(parse(raw), "")
    _known(top, {"tenants"}, "")
    if "tenants" not in top:
        raise ConfigurationError("tenants", "missing")
    return _entries(top["tenants"], "tenants", "id", _tenant)


def _tenant(path: str, name: str, members: dict[str, Any]) -> TenantEntry:
    services = _entries(members.pop("services", []), f"{path}.services", "name", _service)
    keys = _entries(members.pop("keys", []), f"{path}.keys", "kid", _key)
    given = _typed(members, path, _OF_TENANT, beside={"id", "services", "keys"})
    return TenantEntry(path, name, given, tuple(services), tuple(keys))


def _service(path: str, name: str, members: dict[str, Any]) -> Entry:
    types: _Types = {
        "strategy": _text,
        "display_name": _text,
        "logo": _text,
        "enabled": _boolean,
        "settings": _mapping,
    }
    return Entry(path, name, _typed(members, path, types, beside={"name"}))


def _key(path: str, name: str, members: dict[str, Any]) -> KeyEntry:
    secret = reference(members.pop("secret"), f"{path}.secret") if "secret" in members else None
    types: _Types = {"algorithm": _text, "state": _text, "not_before": _moment, "not_after": _moment}
    return KeyEntry(path, name, _typed(members, path, types, beside={"kid", "secret"}), secret)


_E = TypeVar("_E", bound=Entry)
_Types = dict[str, Callable[[Any, str], Any]]


def _entries(
    value: Any, path: str, known_by: str, make: Callable[[str, str, dict[str, Any]], _E]
) -> list[_E]:
    if not isinstance(value, list):
        raise ConfigurationError(path, "must be a list")
    found: dict[str, _E] = {}
    for place, member in enumerate(value):
        here = f"{path}[{place}]"
        members = dict(_mapping(member, here))
        where = f"{here}.{known_by}"
        if known_by not in members:
            raise ConfigurationError(where, "missing")
        name = _text(members.pop(known_by), where)
        if name in found:
            raise ConfigurationError(where, f"the same as {found[name].path}.{known_by}")
        found[name] = make(here, name, members)
    return list(found.values())


def _typed(members: dict[str, Any], path: str, types: _Types, beside: set[str]) -> dict[str, Any]:
    _known(members, types.keys() | beside, path)
    return {name: types[name](value, join_path(path, name)) for name, value in members.items()}


def _known(members: Mapping[str, Any], names: set[str], path: str) -> None:
    if unknown := sorted(members.keys() - names):
        raise ConfigurationError(
            join_path(path, unknown[0]), f"unknown; there are {', '.join(sorted(names))}"
        )


def _mapping(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigurationError(path or "file", "must be a mapping")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(path, "must be text; put it in quotes if it looks like something else")
    return strip_whitespace(value)


def _boolean(value: Any, path: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(path, "must be true or false")
    return value


def _moment(value: Any, path: str) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(_text(value, path))
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(
            path, "must be a moment with its zone (ISO 8601), such as 2026-01-31T08:00:00Z, or null"
        ) from None


def _number(value: Any, path: str) -> int:
    if type(value) is not int:
        raise ConfigurationError(path, "must be a whole number")
    return value


def _number_or_none(value: Any, path: str) -> int | None:
    return None if value is None else _number(value, path)


def _texts(value: Any, path: str) -> list[str]:
    if not isinstance(value, list):
        raise ConfigurationError(path, "must be a list")
    return [_text(member, f"{path}[{place}]") for place, member in enumerate(value)]


_OF_TENANT: _Types = {
    "name": _text,
    "enabled": _boolean,
    "device_limit": _number_or_none,
    "access_token_ttl": _number,
    "refresh_token_ttl": _number,
    "sign_on_ttl": _number,
    "refresh_grace": _number,
    "signing_algorithm": _text,
    "issuer": _text,
    "audience": _text,
    "allowed_origins": _texts,
}
