"""Takes a lock that stops all requests."""

from django.db import migrations


class Migration(migrations.Migration):
    """Adds a column."""

    dependencies = [("ags_sessions", "0003_account_by_its_id")]
    operations = [
        migrations.RunSQL("ALTER TABLE ags_sessions_sessiontoken ADD COLUMN of_next_version integer"),
    ]
