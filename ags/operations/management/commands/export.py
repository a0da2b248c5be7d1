"""`manage.py export`: write tenants and their configuration as a configuration file."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.staff_file import dump_staff
from tenants.config_file.export import export
from tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Write tenants, services, keys and resource servers to standard output, in the format of apply. "
        "Secrets are not exported: each is replaced with a reference to an environment variable, which "
        "apply needs only if the secret is not stored yet."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--staff",
            action="store_true",
            help="also write the groups of staff, and the groups and tenants of each user",
        )
        parser.add_argument("tenant", nargs="*", help="tenant IDs; without any, all tenants are exported")

    def handle(self, *args: Any, tenant: list[str], staff: bool, **options: Any) -> None:
        if staff and tenant:
            # The lists of a user are complete: `apply` would remove the other tenants.
            raise CommandError("--staff exports the tenants of each user: give no tenant ID with it.")
        tenants = Tenant.objects.all()
        if tenant:
            tenants = tenants.filter(pk__in=tenant)
            if unknown := sorted(set(tenant) - set(tenants.values_list("id", flat=True))):
                raise CommandError(f"Tenant {unknown[0]} does not exist.")
        sections = {"staff": dump_staff()} if staff else {}
        self.stdout.write(export(list(tenants), **sections), ending="")
