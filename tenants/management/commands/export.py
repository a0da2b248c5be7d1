"""`manage.py export`: write tenants, services and keys as the file that `apply` reads."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.config_file.export import export
from tenants.models import Tenant


class Command(BaseCommand):
    """Export all tenants, or those named."""

    help = (
        "Write tenants, services and keys in the form that apply reads. Secrets are left out: each is a "
        "reference to an environment variable, which apply needs only where there is no such secret yet."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("tenant", nargs="*", help="tenant IDs; all when none is given")

    def handle(self, *args: Any, tenant: list[str], **options: Any) -> None:
        """Write the file to standard output."""
        tenants = Tenant.objects.all()
        if tenant:
            tenants = tenants.filter(pk__in=tenant)
            if unknown := sorted(set(tenant) - set(tenants.values_list("id", flat=True))):
                raise CommandError(f"There is no tenant {unknown[0]}.")
        self.stdout.write(export(list(tenants)), ending="")
