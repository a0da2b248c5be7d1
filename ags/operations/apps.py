"""App configuration of `ags.operations`."""

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate


class OperationsConfig(AppConfig):
    name = "ags.operations"

    def ready(self) -> None:
        from ags.database.clock import clock_log
        from ags.operations import (  # they register themselves
            checks,  # noqa: F401
            event_receivers,  # noqa: F401
            token_keys,  # noqa: F401
            upstream_health,
        )
        from ags.operations.groups import set_up_groups
        from ags.operations.standby_keys import publish_after_migrations
        from providers.contract.clock import measured
        from providers.upstream.documents import fetched

        fetched.connect(upstream_health.store)
        measured.connect(clock_log.update)

        # The last app with permissions of AGS, so that all of them exist when the groups are set up.
        post_migrate.connect(set_up_groups, sender=apps.get_app_config("ags_explanations"))
        # The signal is sent for each app when all migrations have been applied.
        post_migrate.connect(publish_after_migrations, sender=apps.get_app_config("tenants"))
