"""The migrations that this code requires and the database lacks."""

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.utils import DatabaseError

from ags.database import READS, fetch_all


async def missing_migrations() -> frozenset[tuple[str, str]]:
    """Applied migrations of a newer version are ignored: an upgrade migrates first."""
    try:
        rows = await fetch_all("SELECT app, name FROM django_migrations", {}, READS)
    except DatabaseError as error:
        if not _lacks_table(error):
            raise
        rows = []
    return required_migrations() - {(app, name) for app, name in rows}


def _lacks_table(error: DatabaseError) -> bool:
    if connection.vendor == "postgresql":
        return getattr(error.__cause__, "sqlstate", None) == "42P01"
    return "no such table" in str(error)


@cache
def required_migrations() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
