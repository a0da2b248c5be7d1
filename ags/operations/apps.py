"""The operations app."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class OperationsConfig(AppConfig):
    """Running AGS: its server, its logs, its checks of the deployment, its purge."""

    name = "ags.operations"

    def ready(self) -> None:
        """Register the system checks, the groups that come with the migrations, and what stores fetches."""
        from ags.operations import checks, upstream_health  # noqa: F401 - registers the checks
        from ags.operations.groups import set_up_groups
        from providers.upstream.documents import fetched

        fetched.connect(upstream_health.store)

        # The last app with permissions of ours: by then all of them are there.
        post_migrate.connect(set_up_groups, sender=apps.get_app_config("ags_sessions"))
