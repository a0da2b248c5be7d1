"""Publishing a standby signing key for tenants of an earlier release, after `migrate`."""

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.recorder import MigrationRecorder

from ags.operations.migrations_state import required_migrations
from tenants.rotation import publish_missing_standby_keys


def publish_after_migrations(using: str, **kwargs: Any) -> None:
    """Do nothing after a migration to an earlier state, for which this code has no models."""
    if using != DEFAULT_DB_ALIAS:
        return
    if required_migrations() <= set(MigrationRecorder(connections[using]).applied_migrations()):
        publish_missing_standby_keys()
