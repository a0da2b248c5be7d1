"""`manage.py erase_account`: erase the personal data of one account."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ags.operations.account_erasure import erase_account
from ags.sessions.models import Account, AccountStatus
from tenants.models import Tenant


class Command(BaseCommand):
    help = (
        "Erase the personal data of one account: its sign-ons end, the account and its devices are deleted, "
        "and account ID, client IDs, client addresses and device information are removed from session tokens "
        "and events, which are kept. An active account is erased only with --yes. Cannot be undone. Can be "
        "repeated, also after a crash. A later sign-on creates a new account."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant", help="the tenant ID")
        parser.add_argument("account_id", help="the account ID of the operator")
        parser.add_argument("--yes", action="store_true", help="erase the account even if it is active")

    def handle(self, *args: Any, tenant: str, account_id: str, yes: bool, **options: Any) -> None:
        if not Tenant.objects.filter(pk=tenant).exists():
            raise CommandError(f"Tenant {tenant} does not exist.")
        if not account_id:  # that of rows of erased accounts
            raise CommandError("The account ID is empty.")
        accounts = Account.objects.for_tenant(tenant).filter(account_id=account_id)
        if not yes and accounts.filter(status=AccountStatus.ACTIVE).exists():
            raise CommandError(
                "The account is active, and its subscriber may be watching. Cancel it first, or add --yes."
            )
        erased: Counter[str] = Counter()
        try:
            for kind, number in erase_account(tenant, account_id):
                erased[kind] += number
        finally:
            if erased.total():
                counts = ", ".join(f"{number} {kind}" for kind, number in erased.items())
                self.stdout.write(f"{counts} erased")
        if not erased.total():
            self.stdout.write("Nothing is stored about this account.")
