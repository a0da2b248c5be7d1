"""Blocks no requests; leaves an invalid index if interrupted."""

from django.db import migrations


class Migration(migrations.Migration):
    """Adds an index."""

    atomic = False
    dependencies = [("ags_sessions", "x001_column")]
    operations = [
        migrations.RunSQL(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS of_next_version"
            " ON ags_sessions_sessiontoken (created_at)"
        ),
    ]
