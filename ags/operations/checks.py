"""System checks of the deployment: `manage.py check --deploy`."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import connection
from django.db.utils import DatabaseError

from ags import env, tracing
from ags.database.clock import describe_difference, get_database_time, is_clock_suspect, measure_clock
from ags.database.django_connections import RESPONSE_TIMEOUT
from ags.limits.redis import is_client_installed
from ags.operations import pooler
from ags.operations.purge_counts import MAX_RATIO, read_purge_status

SERVED_PATHS = {"off": "the API, but not /admin/", "only": "/admin/ and /docs/, but not the API"}
"""Values of AGS_ADMIN with which a process does not serve everything."""

POOLER_HINT = "Set AGS_DATABASE_POOLER=transaction (docs/running/database.md, Behind a pooler)."


@register()
def check_environment(**kwargs: Any) -> list[CheckMessage]:
    """Warn of environment variables that are mistyped or no longer used, without their values."""
    return [
        Warning(f"{name} is set, but AGS has no such setting.", hint=hint, id="operations.W005")
        for name, hint in env.find_unknown_variables()
    ]


@register()
def check_redis_client(**kwargs: Any) -> list[CheckMessage]:
    if not settings.AGS_REDIS_URL or is_client_installed():
        return []
    return [
        Error(
            "AGS_REDIS_URL is set, but the client library of Redis is not installed.",
            hint="Install requirements/redis.txt (docs/running/limits.md).",
            id="operations.E004",
        )
    ]


@register()
def check_tracing_library(**kwargs: Any) -> list[CheckMessage]:
    if not settings.AGS_TRACES or tracing.is_library_installed():
        return []
    return [
        Error(
            "An endpoint for traces is set, but the library of OpenTelemetry is not installed.",
            hint="Install requirements/opentelemetry.txt (docs/running/on-call.md, Traces).",
            id="operations.E005",
        )
    ]


@register(Tags.database)
def check_encoding(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    if not databases:
        return []
    return [
        Error(
            f"The encoding of the database is {encoding}, not UTF8: it cannot store every account ID.",
            hint="Move the data to a database that was created with: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            id="operations.E001",
        )
        for (encoding,) in _query("SHOW server_encoding")
        if encoding != "UTF8"
    ]


@register(Tags.database)
def check_pooler(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    if not databases or connection.vendor != "postgresql":
        return []
    try:
        pooler.check_options()
        if not pooler.loses_prepared_statements():
            return []
    except pooler.StartupOptionsLost:
        return [
            Error(
                "A pooler between AGS and PostgreSQL rejects or drops startup options.",
                hint=POOLER_HINT,
                id="operations.E002",
            )
        ]
    except psycopg.Error:
        return []
    return [
        Error(
            "The pooler between AGS and PostgreSQL does not support prepared statements.",
            hint=POOLER_HINT
            if settings.AGS_DATABASE_POOLER == "none"
            else "Remove prepare_threshold from DATABASE_URL. "
            "PgBouncer supports them since 1.21, with max_prepared_statements above 0.",
            id="operations.E003",
        )
    ]


@register(Tags.database)
def check_clock(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    if not databases or connection.vendor != "postgresql":
        return []
    try:
        measure_clock()
        if not is_clock_suspect():
            return []
        database_time, own_time = get_database_time(), datetime.now(UTC)
    except DatabaseError:
        return []
    difference = describe_difference()
    return [
        Warning(
            f"The clock of this machine is {difference['clock']}: it differs from that of the database by "
            f"{difference['seconds']:,} seconds.",
            hint=f"It is {own_time:%Y-%m-%d %H:%M:%S} UTC here, and {database_time:%Y-%m-%d %H:%M:%S} UTC "
            "there. Synchronize both with NTP, for example with chrony (docs/symptoms.md, A clock is wrong).",
            id="operations.W006",
        )
    ]


@register(Tags.database)
def check_purge(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Check what the latest purge has stored. An installation that has never purged has nothing to purge."""
    if not databases:
        return []
    try:
        status = read_purge_status()
    except DatabaseError:  # unavailable, or not migrated
        return []
    found: list[CheckMessage] = [
        Warning(
            f"There are {count.dead} expired rows of {kind}, more than {MAX_RATIO} times the others.",
            hint="See docs/symptoms.md, Expired rows accumulate.",
            id="operations.W009",
        )
        for kind, count in status.kinds.items()
        if count.accumulates
    ]
    if status.is_overdue:
        found.append(
            Warning(
                "No purge has succeeded for an hour.",
                hint="See docs/symptoms.md, Expired rows accumulate.",
                id="operations.W008",
            )
        )
    return found


@register(Tags.security, deploy=True)
def check_limits(**kwargs: Any) -> list[CheckMessage]:
    """Check the defaults of the role: behind a pooler, AGS cannot set them in startup options."""
    if settings.AGS_DATABASE_POOLER == "none":
        return []
    try:
        missing, time_zone = pooler.role_defaults()
    except psycopg.Error:
        return []
    problems = []
    if missing:
        problems.append(
            f"has no {' and no '.join(missing)} below {RESPONSE_TIMEOUT} s: "
            "a blocked statement continues after its request has been answered."
        )
    if time_zone != connection.timezone_name:
        problems.append(
            f"has the TimeZone {time_zone}, not {connection.timezone_name}: "
            "AGS sets it on each connection, and a pooler may keep it for others."
        )
    return [
        Warning(
            f"The role of DATABASE_URL {problem}",
            hint="ALTER ROLE … SET (docs/running/database.md, Behind a pooler).",
            id="operations.W004",
        )
        for problem in problems
    ]


@register(Tags.security, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if connection.vendor == "sqlite":
        found.append(
            Warning(
                "DATABASE_URL is SQLite, which only one machine can write to.",
                hint="Use PostgreSQL.",
                id="operations.W001",
            )
        )
    if not settings.AGS_TRUSTED_PROXIES_SET:
        found.append(
            Warning(
                "AGS_TRUSTED_PROXIES is not set.",
                hint="Set it to the number of proxies that append to X-Forwarded-For, 0 if there is none.",
                id="operations.W002",
            )
        )
    if served := SERVED_PATHS.get(settings.AGS_ADMIN):
        found.append(
            Info(
                f"AGS_ADMIN is {settings.AGS_ADMIN}: processes with this environment serve {served}.",
                hint="Run others that serve the rest "
                "(docs/running/install.md, The admin in a process of its own).",
                id="operations.I001",
            )
        )
    return found


@register(Tags.security, deploy=True)
def check_durability(**kwargs: Any) -> list[CheckMessage]:
    rows = _query(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'synchronous_commit')"
        " AND setting = 'off' ORDER BY name"
    )
    return [
        Warning(
            f"PostgreSQL runs with {name} off: issued tokens may be lost in a crash.", id="operations.W003"
        )
        for (name,) in rows
    ]


def _query(sql: str) -> list[tuple[Any, ...]]:
    """Return the rows; none if the database is not PostgreSQL or is unavailable."""
    if connection.vendor != "postgresql":
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor)
    except DatabaseError:
        return []
