"""Whether the database has the schema that this code was written for."""

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.utils import DatabaseError

from ags.database import READS, fetch_all


async def missing() -> frozenset[tuple[str, str]]:
    """Return the migrations (app, name) of this code that the database has not seen.

    Raises Django's database errors. Migrations that only a newer version knows do no harm: a version is
    upgraded by migrating first and then replacing the processes.
    """
    try:
        rows = await fetch_all("SELECT app, name FROM django_migrations", {}, READS)
    except DatabaseError as error:
        if not _lacks_table(error):
            raise
        rows = []
    return expected() - {(app, name) for app, name in rows}


def _lacks_table(error: DatabaseError) -> bool:
    if connection.vendor == "postgresql":
        return getattr(error.__cause__, "sqlstate", None) == "42P01"
    return "no such table" in str(error)


@cache
def expected() -> frozenset[tuple[str, str]]:
    """Return the migrations of this code."""
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
