"""The page that explains requests: a proxy, which has no table."""

from django.db import migrations


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('ags_sessions', '0008_audit_trail_indexes'),
    ]

    operations = [
        migrations.CreateModel(
            name='ExplainedRequest',
            fields=[],
            options={
                'verbose_name': 'explained request',
                'verbose_name_plural': 'explain a request',
                'proxy': True,
                'default_permissions': (),
                'indexes': [],
                'constraints': [],
            },
            bases=('ags_sessions.event',),
        ),
    ]
