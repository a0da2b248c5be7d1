"""`manage.py move_public_keys TENANT SERVICE`: move entered public keys to the keys of the tenant."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.services.moved_keys import MoveRefused, move_public_keys


class Command(BaseCommand):
    help = (
        "Move the public keys that were entered in the settings of a signed_jwt service to the keys of its "
        "tenant, in one transaction: they become active keys, and the service verifies with the keys of the "
        "tenant (keys_from: tenant). No request is refused. Can be repeated. Exit status: 0 on success, also "
        "if there is nothing to do; 1 on error, which changes nothing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tenant", help="tenant ID")
        parser.add_argument("service", help="service name")

    def handle(self, *args: Any, tenant: str, service: str, **options: Any) -> None:
        try:
            move = move_public_keys(tenant, service)
        except MoveRefused as error:
            raise CommandError(str(error)) from None
        if move is None:
            self.stdout.write("nothing to do: the service verifies with the keys of the tenant")
            return
        for key in move.added:
            self.stdout.write(f"+ key {tenant}/{key.kid}: {key.algorithm}, {key.state}")
        for key in move.existing:
            self.stdout.write(f"key {tenant}/{key.kid} exists already; it is {key.state}")
        self.stdout.write(f"~ service {tenant}/{service}: settings.keys_from entered -> tenant")
        if move.unused:
            self.stdout.write(f"Not moved: {move.unused} of the entered keys, which the service did not use.")
