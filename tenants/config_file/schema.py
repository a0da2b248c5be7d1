"""The schema of a configuration file, derived from the models: its entries and the types of their members."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, get_args

from django.db import models
from pydantic import AfterValidator, FailFast, TypeAdapter, ValidationError, create_model

from tenants.config_file.secret_refs import Encoding, SecretReference, StrictModel
from tenants.config_file.yaml_loader import ConfigurationError, join_path, parse_yaml
from tenants.models import Key, ResourceServer, Service, Tenant
from tenants.models.editable_fields import editable_fields
from tenants.whitespace import strip_whitespace


@dataclass(frozen=True, slots=True)
class Entry:
    """A tenant, service, key or resource server, or a group or user of staff.

    `path`: its location in the file. `fields`: its members, without its name.

    `secret` (of a key or resource server, or for the signing key of a tenant) and `public_key` (of a key) are
    None if the file does not have them. `services`, `keys` and `resource_servers` are those of a tenant.
    """

    path: str
    name: str
    fields: Mapping[str, Any]
    secret: SecretReference | None = None
    public_key: str | None = None
    services: Sequence[Entry] = ()
    keys: Sequence[Entry] = ()
    resource_servers: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class ConfigurationFile:
    """The entries of a file. `groups` and `users` are those of staff."""

    tenants: Sequence[Entry]
    groups: Sequence[Entry]
    users: Sequence[Entry]


def parse_file(raw: bytes) -> ConfigurationFile:
    """Parse a configuration file and check the types of its members. Raises ConfigurationError."""
    file = _validate(_FILE.model_validate, parse_yaml(raw))
    return ConfigurationFile(
        _entries(file.tenants, "tenants", "id"),
        _entries(file.staff.groups, "staff.groups", "name"),
        _entries(file.staff.users, "staff.users", "username"),
    )


def parse_reference(value: Any, path: str) -> SecretReference:
    """Parse a reference such as `{env: NAME}`. Raises ConfigurationError."""
    reference: SecretReference = _validate(_REFERENCE.validate_python, value, path)
    return reference


def _entries(members: Sequence[StrictModel], path: str, name_member: str) -> list[Entry]:
    """Return the members of a list. `name_member` is the member that identifies an entry."""
    entries: dict[str, Entry] = {}
    for index, member in enumerate(members):
        location = f"{path}[{index}]"
        fields = {name: value for name, value in member if name in member.model_fields_set}
        name = fields.pop(name_member)
        if name in entries:
            raise ConfigurationError(
                f"{location}.{name_member}", f"duplicate of {entries[name].path}.{name_member}"
            )
        entries[name] = Entry(
            location,
            name,
            secret=fields.pop("secret", None) or fields.pop("signing_secret", None),
            public_key=fields.pop("public_key", None),
            services=_entries(fields.pop("services", ()), f"{location}.services", "name"),
            keys=_entries(fields.pop("keys", ()), f"{location}.keys", "kid"),
            resource_servers=_entries(
                fields.pop("resource_servers", ()), f"{location}.resource_servers", "client_id"
            ),
            fields=fields,
        )
    return list(entries.values())


def _parse_time(text: str) -> datetime:
    # The type datetime of pydantic also accepts numbers, as seconds since the epoch.
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise ValueError
        return time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(
            "must be an ISO 8601 date and time with a UTC offset, e.g. 2026-01-31T08:00:00Z, or null"
        ) from None


_Text = Annotated[str, AfterValidator(strip_whitespace)]
_TYPES: dict[type[models.Field[Any, Any]], Any] = {
    models.BooleanField: bool,
    models.CharField: _Text,
    models.DateTimeField: Annotated[_Text, AfterValidator(_parse_time)],
    models.IntegerField: int,
}
_JSON_TYPES: dict[Any, Any] = {dict: dict[str, Any], list: list[_Text]}
"""The types of JSON fields by their defaults."""


def _type_of(field: models.Field[Any, Any]) -> Any:
    if isinstance(field, models.JSONField):
        return _JSON_TYPES[field.default]
    type_ = next(type_ for django_field, type_ in _TYPES.items() if isinstance(field, django_field))
    return type_ | None if field.null else type_


def _schema(model: type[models.Model], **others: Any) -> Any:
    """Return a schema of the editable fields of the model, all of them optional, and `others`."""
    fields = {name: (_type_of(field), None) for name, field in editable_fields(model).items()}
    return create_model(model.__name__, __base__=StrictModel, **fields | others)


def _list_of(schema: Any) -> Any:
    return Annotated[list[schema], FailFast()]


_SERVICE = _schema(Service, name=(_Text, ...))
_KEY = _schema(Key, kid=(_Text, ...), secret=(SecretReference, None), public_key=(_Text, None))
_RESOURCE_SERVER = _schema(ResourceServer, client_id=(_Text, ...), secret=(SecretReference, None))
_TENANT = _schema(
    Tenant,
    id=(_Text, ...),
    signing_secret=(SecretReference, None),
    services=(_list_of(_SERVICE), ()),
    keys=(_list_of(_KEY), ()),
    resource_servers=(_list_of(_RESOURCE_SERVER), ()),
)
_GROUP = create_model("Group", __base__=StrictModel, name=(_Text, ...), permissions=(_list_of(_Text), ()))
_USER = create_model(
    "User",
    __base__=StrictModel,
    username=(_Text, ...),
    groups=(_list_of(_Text), ()),
    tenants=(_list_of(_Text), ()),
)
_STAFF = create_model(
    "Staff", __base__=StrictModel, groups=(_list_of(_GROUP), ()), users=(_list_of(_USER), ())
)
_FILE = create_model("File", __base__=StrictModel, tenants=(_list_of(_TENANT), ...), staff=(_STAFF, _STAFF()))
_REFERENCE: TypeAdapter[Any] = TypeAdapter(SecretReference, config=StrictModel.model_config)
_SCHEMAS = {
    "tenants": _TENANT,
    "services": _SERVICE,
    "keys": _KEY,
    "resource_servers": _RESOURCE_SERVER,
    "groups": _GROUP,
    "users": _USER,
}

_MESSAGES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping",
    "int_type": "must be an integer",
    "list_type": "must be a list",
    "literal_error": f"must be one of {', '.join(get_args(Encoding))}",
    "missing": "missing",
    "model_type": "must be a mapping",
    "string_pattern_mismatch": "must be the name of an environment variable: capital letters, digits and _",
    "string_too_short": "must be a path",
    "string_type": "must be a string; quote it if YAML reads it as another type",
}


def _validate(validator: Callable[[Any], Any], value: Any, path: str = "") -> Any:
    """Raise ConfigurationError for the first error, with a message that contains no value."""
    try:
        return validator(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
    for part in problem["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("{"):  # the form of a reference, which is no member
            path = join_path(path, part)
    if problem["type"] == "extra_forbidden":
        message = _explain_unknown_member(problem["loc"])
    else:
        message = _MESSAGES.get(problem["type"], problem["msg"].removeprefix("Value error, "))
    # Not in the `except` block: the error of pydantic contains the input.
    raise ConfigurationError(path or "file", message)


def _explain_unknown_member(location: tuple[int | str, ...]) -> str:
    match location:
        case ("staff", _):
            schema = _STAFF
        case (*_, str(), _):
            return "is allowed with env and file only"
        case (*_, str(members), int(), _):
            schema = _SCHEMAS[members]
        case _:
            schema = _FILE
    return f"unknown member; must be one of {', '.join(sorted(schema.model_fields))}"
