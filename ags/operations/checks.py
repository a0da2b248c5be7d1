"""System checks of the deployment: `manage.py check --deploy`."""

from collections.abc import Sequence
from typing import Any

import psycopg
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Tags, Warning, register
from django.db import connection
from django.db.utils import DatabaseError

from ags import env
from ags.database.django_connections import ANSWER_LIMIT
from ags.operations import pooler

PARTIAL = {
    "off": "the API, and no /admin/",
    "only": "/admin/ and /docs/, and no endpoint of the API",
}
"""What a process serves, by the value of AGS_ADMIN, where that is not everything."""

DECLARE = "Set AGS_DATABASE_POOLER=transaction (docs/running.md, Behind a pooler)."


@register()
def check_environment(**kwargs: Any) -> list[CheckMessage]:
    """Name variables that are mistyped, or settings no more. Their values are not repeated."""
    return [
        Warning(f"{name} is set, but AGS has no such setting.", hint=hint, id="operations.W005")
        for name, hint in env.unknown()
    ]


@register(Tags.database)
def check_encoding(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Refuse a PostgreSQL database that cannot store every character, in `migrate` and `serve`."""
    if not databases or "default" not in databases or connection.vendor != "postgresql":
        return []
    try:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_encoding")
            (encoding,) = cursor.fetchone()
    except DatabaseError:
        return []
    if encoding == "UTF8":
        return []
    return [
        Error(
            f"The encoding of the database is {encoding}, not UTF8: it cannot store every account ID.",
            hint="Move the data to a database that was made with: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
            id="operations.E001",
        )
    ]


@register(Tags.database)
def check_pooler(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Find a pooler that would break what the server does, before a request does."""
    if not databases or "default" not in databases or connection.vendor != "postgresql":
        return []
    try:
        pooler.check_options()
        if not pooler.loses_prepared_statements():
            return []
    except pooler.OptionsLost:
        return [
            Error(
                "There is a pooler between AGS and PostgreSQL: it refuses or drops start-up options.",
                hint=DECLARE,
                id="operations.E002",
            )
        ]
    except psycopg.Error:
        return []
    return [
        Error(
            "The pooler between AGS and PostgreSQL does not know prepared statements.",
            hint=DECLARE
            if settings.AGS_DATABASE_POOLER == "none"
            else "Remove prepare_threshold from DATABASE_URL. "
            "PgBouncer knows them since 1.21, with max_prepared_statements above 0.",
            id="operations.E003",
        )
    ]


@register(Tags.security, deploy=True)
def check_limits(**kwargs: Any) -> list[CheckMessage]:
    """Behind a pooler, only the roles can have limits and a time zone."""
    if settings.AGS_DATABASE_POOLER == "none":
        return []
    try:
        missing, time_zone = pooler.role_defaults()
    except psycopg.Error:
        return []
    lacks = []
    if missing:
        lacks.append(
            f"has no {' and no '.join(missing)} below {ANSWER_LIMIT} s: "
            "a statement that is stuck goes on after its request was answered."
        )
    if time_zone != connection.timezone_name:
        lacks.append(
            f"has the TimeZone {time_zone}, not {connection.timezone_name}: "
            "AGS sets it on each connection, and the pooler may leave it there."
        )
    return [
        Warning(
            f"The role of DATABASE_URL {lack}",
            hint="ALTER ROLE … SET (docs/running.md, Behind a pooler).",
            id="operations.W004",
        )
        for lack in lacks
    ]


@register(Tags.security, deploy=True)
def check_deployment(**kwargs: Any) -> list[CheckMessage]:
    """Tell what works for a demonstration and not for subscribers."""
    found: list[CheckMessage] = []
    if connection.vendor == "sqlite":
        found.append(
            Warning(
                "DATABASE_URL is SQLite, which one machine alone can write to.",
                hint="Use PostgreSQL.",
                id="operations.W001",
            )
        )
    if not settings.AGS_TRUSTED_PROXIES_SET:
        found.append(
            Warning(
                "AGS_TRUSTED_PROXIES is not set.",
                hint="Say how many proxies append to X-Forwarded-For in front of AGS; 0 is an answer.",
                id="operations.W002",
            )
        )
    return found


@register(Tags.security, deploy=True)
def check_admin(**kwargs: Any) -> list[CheckMessage]:
    """Say what the process serves, if that is not everything: other processes must serve the rest."""
    if settings.AGS_ADMIN not in PARTIAL:
        return []
    return [
        Info(
            f"AGS_ADMIN is {settings.AGS_ADMIN}: processes with this environment serve "
            f"{PARTIAL[settings.AGS_ADMIN]}.",
            hint="Run others that serve the rest (docs/running.md, The admin in a process of its own).",
            id="operations.I001",
        )
    ]


@register(Tags.security, deploy=True)
def check_durability(**kwargs: Any) -> list[CheckMessage]:
    """A granted answer must survive a power cut."""
    if connection.vendor != "postgresql":
        return []
    found: list[CheckMessage] = []
    try:
        for setting in ("fsync", "synchronous_commit"):
            with connection.cursor() as cursor:
                cursor.execute(f"SHOW {setting}")
                (value,) = cursor.fetchone()
            if value == "off":
                found.append(
                    Warning(
                        f"PostgreSQL runs with {setting} off: issued tokens may be lost in a crash.",
                        id="operations.W003",
                    )
                )
    except DatabaseError:
        return []
    return found
