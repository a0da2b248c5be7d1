"""Session tokens are searched and purged by tenant and time; the purge read them by `dead_after` alone."""

from django.db import migrations, models

TABLE = 'ags_sessions_sessiontoken'
# As Django names them.
OLD = 'ags_sessions_sessiontoken_dead_after_7361ca63'
NEW = 'tokens_of_a_time'
COLUMNS = {OLD: 'dead_after', NEW: 'tenant_id, created_at, dead_after'}


def replace(schema_editor, old, new):
    # Concurrently: else all requests would wait behind it while it builds the index, or waits for a dump to end.
    how = 'CONCURRENTLY ' if schema_editor.connection.vendor == 'postgresql' else ''
    if how:  # of an attempt that failed, an invalid index is left
        schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{new}"')
    schema_editor.execute(f'CREATE INDEX {how}IF NOT EXISTS "{new}" ON {TABLE} ({COLUMNS[new]})')
    schema_editor.execute(f'DROP INDEX {how}IF EXISTS "{old}"')


def forwards(apps, schema_editor):
    replace(schema_editor, OLD, NEW)


def backwards(apps, schema_editor):
    replace(schema_editor, NEW, OLD)


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('ags_sessions', '0007_audit_trail'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(forwards, backwards)],
            state_operations=[
                migrations.AlterField(
                    model_name='sessiontoken',
                    name='dead_after',
                    field=models.DateTimeField(),
                ),
                migrations.AddIndex(
                    model_name='sessiontoken',
                    index=models.Index(fields=['tenant', 'created_at', 'dead_after'], name=NEW),
                ),
            ],
        ),
    ]
