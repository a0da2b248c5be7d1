"""Unused devices are purged by tenant and the end of their sign-on."""

from django.db import migrations, models

NAME = 'enabled_devices_by_end'


def forwards(apps, schema_editor):
    # Concurrently: else sign-ons would wait while it builds the index.
    how = 'CONCURRENTLY ' if schema_editor.connection.vendor == 'postgresql' else ''
    if how:  # an attempt that failed leaves an invalid index
        schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{NAME}"')
    schema_editor.execute(
        f'CREATE INDEX {how}IF NOT EXISTS "{NAME}" ON ags_sessions_device (tenant_id, fixed_expires_at)'
        " WHERE status = 'enabled'"
    )


def backwards(apps, schema_editor):
    how = 'CONCURRENTLY ' if schema_editor.connection.vendor == 'postgresql' else ''
    schema_editor.execute(f'DROP INDEX {how}IF EXISTS "{NAME}"')


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('ags_sessions', '0010_purge_counts'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(forwards, backwards)],
            state_operations=[
                migrations.AddIndex(
                    model_name='device',
                    index=models.Index(
                        condition=models.Q(('status', 'enabled')),
                        fields=['tenant', 'fixed_expires_at'],
                        name='enabled_devices_by_end',
                    ),
                ),
            ],
        ),
    ]
