"""The tenants app."""

from django.apps import AppConfig


class TenantsConfig(AppConfig):
    """The configuration: who the operators are, what each switched on, which keys each is trusted by."""

    name = "tenants"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the system checks, and listen to what is fetched."""
        from providers.upstream.documents import fetched
        from tenants import checks, health  # noqa: F401 - registers the checks

        fetched.connect(health.keep)
