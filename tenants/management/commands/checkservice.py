"""`manage.py checkservice [TENANT [SERVICE]]`: check the configuration of services."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenants.models import Service
from tenants.services.check import check_service

RESULT_LABELS = {True: "ok", None: "note", False: "BAD"}


class Command(BaseCommand):
    help = (
        "Check the configuration of a service, or of all enabled services, against the upstream. No token is "
        "issued and nothing is changed. Exit status: 0 if no check failed, 1 otherwise."
    )
    requires_system_checks = ["providers"]

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "tenant", nargs="?", help="tenant ID; without one, all enabled services are checked"
        )
        parser.add_argument(
            "service",
            nargs="?",
            help="service name; without one, all enabled services of the tenant are checked",
        )

    def handle(self, *args: Any, tenant: str | None, service: str | None, **options: Any) -> None:
        failed = 0
        named = [_get_service(tenant, service)] if tenant and service else None
        for row in named or _get_enabled_services(tenant):
            if not service:
                self.stdout.write(f"{row.tenant_id}, {row.name}:")
            for result in check_service(row):
                failed += result.passed is False
                self.stdout.write(f"{RESULT_LABELS[result.passed]:5}{result.message}")
                self.stdout.flush()
        if failed:
            checks = "1 check" if failed == 1 else f"{failed} checks"
            raise CommandError(f"{checks} failed: subscribers would be unable to sign on.")


def _get_service(tenant: str, name: str) -> Service:
    service = Service.objects.for_tenant(tenant).select_related("tenant").filter(name=name).first()
    if service is None:
        names = Service.objects.for_tenant(tenant).order_by("name").values_list("name", flat=True)
        raise CommandError(
            f"Tenant {tenant} has no service {name!r}. Its services: {', '.join(names) or 'none'}."
        )
    return service


def _get_enabled_services(tenant: str | None) -> list[Service]:
    rows = Service.objects.for_tenant(tenant) if tenant else Service.unscoped.all()
    enabled = rows.filter(enabled=True, tenant__enabled=True)
    services = list(enabled.select_related("tenant").order_by("tenant", "name"))
    if not services:
        raise CommandError(f"{f'Tenant {tenant} has' if tenant else 'There is'} no enabled service.")
    return services
