"""`manage.py export_account`: print everything that AGS stores about one account."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.account_data import export_account
from tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Print everything that AGS stores about one account as a JSON document: the account, its devices, "
        "session tokens and events, and the history of the pages of staff. Hashes are not exported. Exit "
        "status 1 if nothing is stored about the account."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant", help="the tenant ID")
        parser.add_argument("account_id", help="the account ID of the operator")

    def handle(self, *args: Any, tenant: str, account_id: str, **options: Any) -> None:
        if not Tenant.objects.filter(pk=tenant).exists():
            raise CommandError(f"Tenant {tenant} does not exist.")
        if not account_id:  # that of rows of erased accounts
            raise CommandError("The account ID is empty.")
        is_empty = True
        for piece in export_account(tenant, account_id):
            is_empty = False
            self.stdout.write(piece, ending="")
        if is_empty:
            raise CommandError(f"AGS stores nothing about account {account_id} of tenant {tenant}.")
