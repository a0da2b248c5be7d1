"""Takes a lock that blocks all requests."""

from pkgutil import iter_modules

from django.db import migrations

from ags.sessions.migrations import __path__

LATEST = max(module.name for module in iter_modules(__path__))


class Migration(migrations.Migration):
    """Adds a column."""

    dependencies = [("ags_sessions", LATEST)]
    operations = [
        migrations.RunSQL("ALTER TABLE ags_sessions_sessiontoken ADD COLUMN of_next_version integer"),
    ]
