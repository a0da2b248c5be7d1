"""An account is found by tenant and account ID; the index by tenant alone misled the planner to all of them."""

import django.db.models.deletion
from django.db import migrations, models

# As Django named it in 0001. Nothing but these indexes changes, and no row is written.
INDEX = 'ags_sessions_account_tenant_id_d8fe47ac'




def drop(apps, schema_editor):
    # Concurrently: else all sign-ons would wait behind it while it waits for a dump to end.
    # PostgreSQL has a second one, for LIKE.
    how = 'CONCURRENTLY IF EXISTS' if schema_editor.connection.vendor == 'postgresql' else 'IF EXISTS'
    for name in (f'{INDEX}_like', INDEX):
        schema_editor.execute(f'DROP INDEX {how} "{name}"')


def make(apps, schema_editor):
    how = 'CONCURRENTLY IF NOT EXISTS' if schema_editor.connection.vendor == 'postgresql' else 'IF NOT EXISTS'
    schema_editor.execute(f'CREATE INDEX {how} "{INDEX}" ON ags_sessions_account (tenant_id)')


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('ags_sessions', '0002_account_choice'),
        ('tenants', '0003_secret_settings'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(drop, make)],
            state_operations=[
                migrations.AlterField(
                    model_name='account',
                    name='tenant',
                    field=models.ForeignKey(db_index=False, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='tenants.tenant'),
                ),
            ],
        ),
    ]
