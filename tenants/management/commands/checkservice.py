"""`manage.py checkservice TENANT SERVICE`: try the configuration of a service against its upstream."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.models import Service
from tenants.trial import try_service

MARKS = {True: "ok", None: "note", False: "BAD"}


class Command(BaseCommand):
    """Print a line for each finding; fail if one of them is bad."""

    help = "Try the configuration of a service against its upstream. Nothing is issued, nothing is changed."
    requires_system_checks = ["providers"]

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("tenant", help="tenant ID")
        parser.add_argument("service", help="name of the service, as discovery lists it")

    def handle(self, *args: Any, tenant: str, service: str, **options: Any) -> None:
        """Try it."""
        found = Service.objects.for_tenant(tenant).select_related("tenant").filter(name=service).first()
        if found is None:
            names = Service.objects.for_tenant(tenant).order_by("name").values_list("name", flat=True)
            raise CommandError(
                f"Tenant {tenant} has no service {service!r}. It has: {', '.join(names) or 'none'}."
            )
        bad = 0
        for finding in try_service(found):
            bad += finding.good is False
            self.stdout.write(f"{MARKS[finding.good]:5}{finding.sentence}")
            self.stdout.flush()
        if bad:
            raise CommandError(f"{bad} of these would keep subscribers out.")
