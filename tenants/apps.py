"""The tenants app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """The configuration: who the operators are, what each switched on, which keys each is trusted by."""

    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks."""
        from tenants import checks  # noqa: F401 - registers the checks
