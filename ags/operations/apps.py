"""The operations app."""

from django.apps import AppConfig


class OperationsConfig(AppConfig):
    """Running AGS: its server, its logs, its checks of the deployment, its purge."""

    name = "ags.operations"

    def ready(self) -> None:
        """Register the system checks and the limits of database connections."""
        from ags.operations import checks  # noqa: F401 - registers the checks
