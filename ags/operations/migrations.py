"""Whether the database has the schema that this code was written for."""

from functools import cache

from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder


def missing() -> frozenset[tuple[str, str]]:
    """Return the migrations (app, name) of this code that the database has not seen.

    Raises Django's database errors. Migrations that only a newer version knows do no harm: a version is
    upgraded by migrating first and then replacing the processes.
    """
    return _known() - MigrationRecorder(connection).applied_migrations().keys()


@cache
def _known() -> frozenset[tuple[str, str]]:
    return frozenset(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
