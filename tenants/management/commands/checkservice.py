"""`manage.py checkservice [TENANT [SERVICE]]`: try the configuration of services against their upstreams."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.models import Service
from tenants.services.check import check_service

MARKS = {True: "ok", None: "note", False: "BAD"}


class Command(BaseCommand):
    """Print a line for each result; fail if one of them is bad."""

    help = (
        "Try the configuration of a service against its upstream, or that of every enabled service. "
        "Nothing is issued, nothing is changed."
    )
    requires_system_checks = ["providers"]

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument(
            "tenant", nargs="?", help="tenant ID; without one, every enabled service is tried"
        )
        parser.add_argument(
            "service",
            nargs="?",
            help="its name, as discovery lists it; without one, every enabled service of the tenant",
        )

    def handle(self, *args: Any, tenant: str | None, service: str | None, **options: Any) -> None:
        """Try it, or one after the other."""
        bad = 0
        for found in [_one(tenant, service)] if tenant and service else _enabled(tenant):
            if not service:
                self.stdout.write(f"{found.tenant_id}, {found.name}:")
            for result in check_service(found):
                bad += result.passed is False
                self.stdout.write(f"{MARKS[result.passed]:5}{result.message}")
                self.stdout.flush()
        if bad:
            raise CommandError(f"{bad} of these would keep subscribers out.")


def _one(tenant: str, service: str) -> Service:
    found = Service.objects.for_tenant(tenant).select_related("tenant").filter(name=service).first()
    if found is None:
        names = Service.objects.for_tenant(tenant).order_by("name").values_list("name", flat=True)
        raise CommandError(
            f"Tenant {tenant} has no service {service!r}. It has: {', '.join(names) or 'none'}."
        )
    return found


def _enabled(tenant: str | None) -> list[Service]:
    services = Service.objects.for_tenant(tenant) if tenant else Service.unscoped.all()
    enabled = services.filter(enabled=True, tenant__enabled=True)
    found = list(enabled.select_related("tenant").order_by("tenant", "name"))
    if not found:
        raise CommandError(f"{f'Tenant {tenant} has' if tenant else 'There is'} no enabled service.")
    return found
