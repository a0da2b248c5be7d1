"""Readers of environment variables; each raises ImproperlyConfigured for an invalid value.

django-environ reads DATABASE_URL only: it would take any unknown word for false, `1_000` for an integer, and
NAME_FILE even if NAME is set. Django's validators translate their messages, for which they need the settings.
"""

import base64
import binascii
import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import environ
from django.core.exceptions import ImproperlyConfigured

from tenants.whitespace import strip_whitespace

SECRETS = ("SECRET_KEY", "AGS_ENCRYPTION_KEYS", "DATABASE_URL", "AGS_REDIS_URL")
"""Variables that can also be set as NAME_FILE, the path of a file that contains the value."""

REMOVED: dict[str, str] = {}
"""Variables of earlier releases, with their replacements."""

_known: set[str] = set()
"""All variables that were read: complete once the settings are loaded."""

_IGNORED_PREFIXES = ("AGS_SECRET_", "AGS_TEST_")
"""Variables that are not settings: secrets for `apply`, and those of the tests."""

_KUBERNETES_SUFFIX = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]{1,63})?|PORT(_[0-9]{1,5}_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)
"""Suffixes of the variables that Kubernetes sets for services, here those whose names begin with ags."""

_SYNONYMS = {"1": "on", "true": "on", "yes": "on", "0": "off", "false": "off", "no": "off"}


def env_str(name: str, default: str | None = None) -> str:
    """Return the variable, or `default` if it is empty or unset."""
    _known.update({name, f"{name}_FILE"} if name in SECRETS else {name})
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


def find_unknown_variables() -> Iterator[tuple[str, str]]:
    """Yield each AGS_ variable that is set but not read, with a hint."""
    names = {name for name in os.environ if name.startswith("AGS_")} - _known
    for name in sorted(names):
        if name in REMOVED:
            yield name, f"Set {REMOVED[name]} instead."
        elif not name.startswith(_IGNORED_PREFIXES) and not _KUBERNETES_SUFFIX.search(name):
            matches = get_close_matches(name, sorted(_known), n=1)
            suggestion = f"Did you mean {matches[0]}? " if matches else ""
            yield name, f"{suggestion}If it is a secret for `apply`, begin its name with AGS_SECRET_."


def env_bool(name: str, default: bool) -> bool:
    return env_choice(name, "on" if default else "off", ("on", "off")) == "on"


def available_cpus() -> list[int]:
    """Return the CPUs in the affinity mask of this process (`--cpuset-cpus` of a container).

    A CPU quota (`--cpus`) is not considered.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def env_int(name: str, default: int, minimum: int, maximum: int) -> int:
    value = env_str(name, str(default))
    if not re.fullmatch(r"[0-9]{1,6}", value) or not minimum <= int(value) <= maximum:
        raise ImproperlyConfigured(f"{name}: {value!r} is not an integer from {minimum} to {maximum}.")
    return int(value)


def env_choice(name: str, default: str, choices: tuple[str, ...]) -> str:
    """Return one of `choices`, compared case-insensitively. `on` and `off` have synonyms."""
    value = env_str(name, default)
    canonical = _SYNONYMS.get(value.lower(), value.lower())
    for choice in choices:
        if choice.lower() == canonical:
            return choice
    raise ImproperlyConfigured(f"{name}: {value!r} is not one of {', '.join(choices)}.")


def env_match(name: str, default: str, pattern: str, description: str) -> str:
    """Return a variable that must match `pattern`. `description` is a noun phrase for the error message."""
    return _match(name, env_str(name, default), pattern, description)


def _match(name: str, value: str, pattern: str, description: str) -> str:
    if not re.fullmatch(pattern, value):
        raise ImproperlyConfigured(f"{name}: {value!r} is not {description}.")
    return value


def env_hosts(name: str, default: str) -> list[str]:
    """Return a list of host names for ALLOWED_HOSTS."""
    # Other values (with a scheme, a port or a path) would never match a request, and "*" would match all.
    pattern = r"\.?[A-Za-z0-9_-]++(\.[A-Za-z0-9_-]++)*+|\[[0-9A-Fa-f:.]++\]"
    return [_match(name, host, pattern, "a host name") for host in env_list(name, default)]


def env_networks(name: str) -> list[IPv4Network | IPv6Network]:
    """Return a list of networks in CIDR notation; it may be empty."""
    networks = []
    for word in env_list(name, ""):
        try:
            networks.append(ip_network(word))
        except ValueError:
            description = "a network in CIDR notation, e.g. 10.1.0.0/16"
            raise ImproperlyConfigured(f"{name}: {word!r} is not {description}.") from None
    return networks


def env_apps(name: str, default: str) -> list[str]:
    """Return a list of Django apps that exist."""
    apps = env_list(name, default)
    for app in apps:
        if not all(part.isidentifier() for part in app.split(".")) or not _app_exists(app):
            raise ImproperlyConfigured(f"{name}: there is no app {app!r}.")
        if apps.count(app) > 1:
            raise ImproperlyConfigured(f"{name}: {app} occurs more than once.")
    return apps


def _app_exists(app: str) -> bool:
    package, _, last = app.rpartition(".")
    try:
        return find_spec(package if package and last[0].isupper() else app) is not None
    except ModuleNotFoundError as error:
        # Only a missing parent package means that the app does not exist: the parent may fail to import
        # another.
        if error.name is not None and f"{app}.".startswith(f"{error.name}."):
            return False
        raise


def env_bind(name: str, default: str) -> str:
    """Return a listen address: HOST:PORT or unix:PATH."""
    value = env_str(name, default)
    return value if re.fullmatch("unix:.++", value) else _check_address(name, value, "HOST:PORT or unix:PATH")


def env_second_bind(name: str, first: str) -> str:
    """Return HOST:PORT with a port different from that of `first`, or an empty string."""
    value = env_str(name, "")
    # The server identifies the listener of a request only by its port.
    if value and not first.startswith("unix:") and value.rpartition(":")[2] == first.rpartition(":")[2]:
        raise ImproperlyConfigured(f"{name}: the port must differ from that of AGS_BIND.")
    return value and _check_address(name, value, "HOST:PORT")


def _check_address(name: str, value: str, expected: str) -> str:
    _match(name, value, r"([A-Za-z0-9._-]++|\[[0-9A-Fa-f:.]++\]):[0-9]{1,5}", expected)
    if not 1 <= int(value.rpartition(":")[2]) <= 65535:
        raise ImproperlyConfigured(f"{name}: the port must be a number from 1 to 65535.")
    return value


def env_secret_key() -> str:
    value = env_str("SECRET_KEY")
    if len(value) < 50 or len(set(value)) < 5:  # the limits of Django's deployment check
        raise ImproperlyConfigured("SECRET_KEY: it must have at least 50 characters, 5 of them different.")
    return value


def env_encryption_keys() -> tuple[bytes, ...]:
    """Return the 32-byte keys of AGS_ENCRYPTION_KEYS, newest first."""
    keys = []
    for position, word in enumerate(env_list("AGS_ENCRYPTION_KEYS"), start=1):
        try:
            key = base64.b64decode(word, validate=True)
        except binascii.Error:
            raise ImproperlyConfigured(f"AGS_ENCRYPTION_KEYS: key {position} is not valid base64.") from None
        if len(key) != 32 or len(set(key)) == 1:
            raise ImproperlyConfigured(f"AGS_ENCRYPTION_KEYS: key {position} is not 32 random bytes.")
        keys.append(key)
    if len(set(keys)) != len(keys):
        raise ImproperlyConfigured("AGS_ENCRYPTION_KEYS: a key occurs more than once.")
    return tuple(keys)


def env_list(name: str, default: str | None = None) -> list[str]:
    """Return the items of a comma-separated variable. If the default is "", there may be none."""
    items = [item.strip() for item in env_str(name, default).split(",") if item.strip()]
    if not items and default != "":
        raise ImproperlyConfigured(f"{name}: the list is empty.")
    return items


def env_redis() -> str:
    """Return the URL of Redis or Valkey in the form that the client library reads, or an empty string."""
    url = re.sub(r"\Avalkey(s?)://", r"redis\1://", env_str("AGS_REDIS_URL", ""))
    try:
        if url and not _is_redis_location(urlsplit(url)):
            raise ValueError
    except ValueError:
        raise ImproperlyConfigured(
            "AGS_REDIS_URL: it must look like redis://user:password@host:6379/0, rediss://… for TLS, "
            "or unix:///path."
        ) from None
    return url


def _is_redis_location(url: SplitResult) -> bool:
    """Raises ValueError for an invalid port."""
    if not re.fullmatch(r"((db=[0-9]{1,5}|ssl_ca_certs=[^&]++)(&|\Z))*+", url.query) or url.fragment:
        return False
    if url.scheme == "unix":
        return url.path.startswith("/")
    is_host = bool(url.hostname) and url.port != 0 and bool(re.fullmatch(r"(/[0-9]{0,5})?", url.path))
    return url.scheme in ("redis", "rediss") and is_host


def env_database(*, pooled: bool = False) -> dict[str, Any]:
    """Return Django's database settings for DATABASE_URL.

    With `pooled`, each transaction may run on another connection, so no state of a connection is used
    (docs/running/database.md, "Behind a pooler").
    """
    url = env_str("DATABASE_URL")
    try:
        # django-environ accepts invalid URLs with a warning.
        scheme = url.split("://", 1)[0]
        if scheme not in _OPTIONS or (scheme == "sqlite" and urlsplit(url).netloc):
            raise ValueError
        config = dict(environ.Env.db_url_config(url))
        # `one,two:5432,5433` is parsed as three hosts, the last of which is a number.
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
            raise ImproperlyConfigured("AGS_DATABASE_POOLER: SQLite does not support a pooler.")
        if session_options := {"options", "assume_role"} & options.keys():
            raise ImproperlyConfigured(
                f"DATABASE_URL: {min(session_options)} does not work behind a pooler. Use ALTER ROLE … SET."
            )
        config["DISABLE_SERVER_SIDE_CURSORS"] = True
        defaults = {**defaults, "prepare_threshold": None}
    if scheme != "sqlite":
        config["ENGINE"] = "ags.database.engine"
    # Persistent connections; ags/database/ detects broken ones without a query.
    return {**config, "CONN_MAX_AGE": None, "OPTIONS": {**defaults, **options}}


_POSTGRES_OPTIONS = {
    # With an unreachable server, a request fails with 503 within two seconds.
    "connect_timeout": 2,
    "tcp_user_timeout": 1800,  # milliseconds
    "application_name": "ags",
    # For Django's connections. Statements of API requests are always prepared (ags/database/lane.py).
    # The value none in DATABASE_URL disables prepared statements.
    "prepare_threshold": 5,
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "postgres": _POSTGRES_OPTIONS,
    "postgresql": _POSTGRES_OPTIONS,
    "sqlite": {
        "timeout": 2,  # seconds to wait for a lock
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    },
}
