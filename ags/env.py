"""Everything that a deployment sets, read from the environment once, with a sentence for each mistake."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from tenants.whitespace import strip_whitespace

SECRETS = ("SECRET_KEY", "AGS_ENCRYPTION_KEYS", "DATABASE_URL")
"""Variables that can also be given as NAME_FILE, the path of a file that holds the value."""

REMOVED: dict[str, str] = {}
"""Variables that an earlier release read, each with what to set instead."""

_READ: set[str] = set()
"""Variables that were looked for: the names of all that there are, once the settings are loaded."""

_OTHERS = ("AGS_SECRET_", "AGS_TEST_")
"""What the names of variables begin with that no setting has: secrets, as `export` names them, and tests."""

_KUBERNETES = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]{1,63})?|PORT(_[0-9]{1,5}_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)
"""How the variables end that Kubernetes sets for a service whose name is, or begins with, ags."""

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}

ON_OFF = MappingProxyType(dict.fromkeys(_TRUE, "on") | dict.fromkeys(_FALSE, "off"))
"""The spellings of on and off."""


def env_str(name: str, default: str | None = None) -> str:
    """Return the variable, or `default`. Raises ImproperlyConfigured when there is neither."""
    _READ.update({name, f"{name}_FILE"} if name in SECRETS else {name})
    value = strip_whitespace(os.environ.get(name, ""))
    path = os.environ.get(f"{name}_FILE", "").strip() if name in SECRETS else ""
    if value and path:
        raise ImproperlyConfigured(f"{name}: set {name} or {name}_FILE, not both.")
    if path:
        try:
            value = strip_whitespace(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise ImproperlyConfigured(f"{name}_FILE: cannot read {path}: {reason}.") from None
    if value:
        return value
    if default is None:
        raise ImproperlyConfigured(f"{name}: missing. See .env.example.")
    return default


def unknown() -> Iterator[tuple[str, str]]:
    """Yield the AGS_ variables that are set and that nothing reads, each with what to do about it."""
    names = {name for name in os.environ if name.startswith("AGS_")} - _READ
    for name in sorted(names):
        if name in REMOVED:
            yield name, f"Set {REMOVED[name]} instead."
        elif not name.startswith(_OTHERS) and not _KUBERNETES.search(name):
            nearest = get_close_matches(name, sorted(_READ), n=1)
            meant = f"Did you mean {nearest[0]}? " if nearest else ""
            yield name, f"{meant}If it is a secret for `apply`, begin its name with AGS_SECRET_."


def is_set(name: str) -> bool:
    """Whether the variable holds anything."""
    return env_str(name, "") != ""


def env_bool(name: str, default: bool) -> bool:
    """Return an on/off variable. Raises ImproperlyConfigured."""
    value = env_str(name, "on" if default else "off").lower()
    if value not in _TRUE | _FALSE:
        raise ImproperlyConfigured(f"{name}: {value!r} is neither on nor off.")
    return value in _TRUE


def cpus() -> list[int]:
    """Return the CPUs that this process may use (`--cpuset-cpus` of a container); a quota does not show."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def env_int(name: str, default: int, least: int, most: int) -> int:
    """Return a bounded integer variable. Raises ImproperlyConfigured."""
    value = env_str(name, str(default))
    if not re.fullmatch(r"[0-9]{1,6}", value) or not least <= int(value) <= most:
        raise ImproperlyConfigured(f"{name}: {value!r} is no whole number from {least} to {most}.")
    return int(value)


def env_choice(
    name: str,
    default: str,
    choices: tuple[str, ...],
    synonyms: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Return a variable that has one of few values, spelled as in `choices`. Raises ImproperlyConfigured.

    `synonyms`: other spellings, in lower case, each with its choice.
    """
    value = env_str(name, default)
    meant = synonyms.get(value.lower(), value)
    for choice in choices:
        if choice.lower() == meant.lower():
            return choice
    raise ImproperlyConfigured(f"{name}: {value!r} is none of {', '.join(choices)}.")


def env_match(name: str, default: str, pattern: str, meaning: str) -> str:
    """Return a variable that must match `pattern`. Raises ImproperlyConfigured."""
    value = env_str(name, default)
    if not re.fullmatch(pattern, value):
        raise ImproperlyConfigured(f"{name}: {value!r} is not {meaning}.")
    return value


def hosts(name: str, default: str) -> list[str]:
    """Return a list of host names. Raises ImproperlyConfigured."""
    found = env_list(name, default)
    for word in found:
        # Anything else (an address with scheme or port, a path) would match no request at all; and "*" all.
        if not re.fullmatch(r"\.?[A-Za-z0-9_-]++(\.[A-Za-z0-9_-]++)*+|\[[0-9A-Fa-f:.]++\]", word):
            raise ImproperlyConfigured(f"{name}: {word!r} is no host name.")
    return found


def networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Return a list of networks, which may be empty. Raises ImproperlyConfigured."""
    found = []
    for word in (word.strip() for word in env_str(name, "").split(",")):
        try:
            found += [ip_network(word)] if word else []
        except ValueError:
            raise ImproperlyConfigured(f"{name}: {word!r} is no network such as 10.1.0.0/16.") from None
    return found


def app_paths(name: str, default: str) -> list[str]:
    """Return a list of Django apps that can be found. Raises ImproperlyConfigured."""
    found = env_list(name, default)
    for word in found:
        if not all(part.isidentifier() for part in word.split(".")) or not _exists(word):
            raise ImproperlyConfigured(f"{name}: there is no app {word!r}.")
        if found.count(word) > 1:
            raise ImproperlyConfigured(f"{name}: {word} is given twice.")
    return found


def _exists(app: str) -> bool:
    package, _, last = app.rpartition(".")
    try:
        return find_spec(package if package and last[0].isupper() else app) is not None
    except ModuleNotFoundError as error:
        # A package on the way to it is missing. One that is there and misses something else says so itself.
        if error.name is not None and f"{app}.".startswith(f"{error.name}."):
            return False
        raise


def bind(name: str, default: str) -> str:
    """Return where a server listens: HOST:PORT or unix:PATH. Raises ImproperlyConfigured."""
    value = env_str(name, default)
    return value if re.fullmatch("unix:.++", value) else _host_and_port(name, value, "HOST:PORT or unix:PATH")


def second_bind(name: str, first: str) -> str:
    """Return HOST:PORT, of another port than `first`, or nothing. Raises ImproperlyConfigured."""
    value = env_str(name, "")
    # By its port alone the server tells where a request came in, whatever the address.
    if value and not first.startswith("unix:") and value.rpartition(":")[2] == first.rpartition(":")[2]:
        raise ImproperlyConfigured(f"{name}: it must have a port of its own.")
    return value and _host_and_port(name, value, "HOST:PORT")


def _host_and_port(name: str, value: str, meaning: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9._-]++|\[[0-9A-Fa-f:.]++\]):[0-9]{1,5}", value):
        raise ImproperlyConfigured(f"{name}: {value!r} is not {meaning}.")
    if not 1 <= int(value.rpartition(":")[2]) <= 65535:
        raise ImproperlyConfigured(f"{name}: a port is a number from 1 to 65535.")
    return value


def secret_key() -> str:
    """Return Django's SECRET_KEY. Raises ImproperlyConfigured when it is missing or short."""
    value = env_str("SECRET_KEY")
    if len(value) < 50 or len(set(value)) < 5:  # the bounds of Django's own deployment check
        raise ImproperlyConfigured("SECRET_KEY: it must have at least 50 characters, and 5 different ones.")
    return value


def encryption_keys() -> tuple[bytes, ...]:
    """Return the 32-byte keys of AGS_ENCRYPTION_KEYS, newest first. Raises ImproperlyConfigured."""
    keys = []
    for place, word in enumerate(env_list("AGS_ENCRYPTION_KEYS"), start=1):
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error:
            raise ImproperlyConfigured(f"AGS_ENCRYPTION_KEYS: key {place} is not valid base64.") from None
        if len(key) != 32 or len(set(key)) == 1:
            raise ImproperlyConfigured(f"AGS_ENCRYPTION_KEYS: key {place} is not 32 random bytes.")
        keys.append(key)
    if len(set(keys)) != len(keys):
        raise ImproperlyConfigured("AGS_ENCRYPTION_KEYS: a key is given twice.")
    return tuple(keys)


def env_list(name: str, default: str | None = None) -> list[str]:
    """Return a comma-separated variable as a list of at least one word. Raises ImproperlyConfigured."""
    found = [word.strip() for word in env_str(name, default).split(",") if word.strip()]
    if not found:
        raise ImproperlyConfigured(f"{name}: it holds no value.")
    return found


def database(*, pooled: bool = False) -> dict[str, Any]:
    """Return Django's settings of the database in DATABASE_URL. Raises ImproperlyConfigured.

    With `pooled`, a transaction may find another connection of PostgreSQL than the one before: nothing that
    belongs to a connection is used (docs/running.md, "Behind a pooler").
    """
    url = env_str("DATABASE_URL")
    try:
        # django-environ warns and guesses on a URL that it does not understand.
        scheme = url.split("://", 1)[0]
        if scheme not in _OPTIONS or (scheme == "sqlite" and urlsplit(url).netloc):
            raise ValueError
        config = dict(environ.Env.db_url_config(url))
        # `one,two:5432,5433` is read as three hosts, the last of which is a number.
        if not config["NAME"] or any(host.isdecimal() for host in config["HOST"].split(",")):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(
            "DATABASE_URL: it must look like postgres://user:password@host:5432/name or sqlite:////path."
        ) from None
    options = dict(config.get("OPTIONS") or {})
    if str(options.get("prepare_threshold", "")).lower() == "none":
        options["prepare_threshold"] = None
    defaults = _OPTIONS[scheme]
    if pooled:
        if scheme == "sqlite":
            raise ImproperlyConfigured("AGS_DATABASE_POOLER: there is no pooler for SQLite.")
        if stays_behind := {"options", "assume_role"} & options.keys():
            raise ImproperlyConfigured(
                f"DATABASE_URL: behind a pooler it may not set {min(stays_behind)}. Use ALTER ROLE … SET."
            )
        config["DISABLE_SERVER_SIDE_CURSORS"] = True
        defaults = {**defaults, "prepare_threshold": None}
    if scheme != "sqlite":
        config["ENGINE"] = "ags.database.engine"
    # Connections are kept. A dead one is noticed without a question (ags/database/).
    return {**config, "CONN_MAX_AGE": None, "OPTIONS": {**defaults, **options}}


_POSTGRES_OPTIONS = {
    # An unreachable server is an answer of 503 within two seconds, not a hanging thread.
    "connect_timeout": 2,
    "tcp_user_timeout": 1800,  # milliseconds
    "application_name": "ags",
    # Those of requests always are (ags/database/postgresql.py). `none`: no statement is prepared.
    "prepare_threshold": 5,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "postgres": _POSTGRES_OPTIONS,
    "postgresql": _POSTGRES_OPTIONS,
    "sqlite": {
        "timeout": 2,  # seconds that a writer waits for another
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    },
}
