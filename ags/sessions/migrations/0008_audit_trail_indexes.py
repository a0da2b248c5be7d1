"""Session tokens are searched by tenant and time, and purged so; the purge read them by `dead_after` alone."""

from django.db import migrations, models

TABLE = 'ags_sessions_sessiontoken'
# As Django names it.
OLD = {'ags_sessions_sessiontoken_dead_after_7361ca63': '(dead_after)'}
NEW = {
    'tokens_of_a_time': '(tenant_id, created_at, dead_after)',
    'redemptions_of_a_time': '(tenant_id, redeemed_at) WHERE redeemed_at IS NOT NULL',
    'redemptions_of_an_id': '(tenant_id, redemption_correlation_id) WHERE redemption_correlation_id IS NOT NULL',
}


def replace(schema_editor, old, new):
    # Concurrently: else all requests would wait behind it while it builds an index, or waits for a dump to end.
    how = 'CONCURRENTLY ' if schema_editor.connection.vendor == 'postgresql' else ''
    for name, columns in new.items():
        if how:  # an attempt that failed leaves an invalid index
            schema_editor.execute(f'DROP INDEX CONCURRENTLY IF EXISTS "{name}"')
        schema_editor.execute(f'CREATE INDEX {how}IF NOT EXISTS "{name}" ON {TABLE} {columns}')
    for name in old:
        schema_editor.execute(f'DROP INDEX {how}IF EXISTS "{name}"')


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
                    index=models.Index(fields=['tenant', 'created_at', 'dead_after'], name='tokens_of_a_time'),
                ),
                migrations.AddIndex(
                    model_name='sessiontoken',
                    index=models.Index(
                        condition=models.Q(('redeemed_at__isnull', False)),
                        fields=['tenant', 'redeemed_at'],
                        name='redemptions_of_a_time',
                    ),
                ),
                migrations.AddIndex(
                    model_name='sessiontoken',
                    index=models.Index(
                        condition=models.Q(('redemption_correlation_id__isnull', False)),
                        fields=['tenant', 'redemption_correlation_id'],
                        name='redemptions_of_an_id',
                    ),
                ),
            ],
        ),
    ]
