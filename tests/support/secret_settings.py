"""A service with the dummy strategy and a passphrase, and its pages of staff."""

from __future__ import annotations

from typing import Any

from django.db import connection

from tenants.models import Service
from tenants.snapshot import snapshot
from tests.support.clients import HeadEnd

MARKER = "marker0815-of-a-secret"
OTHER = "marker4711-of-another"
NAME = "Double"
LIST = "/admin/tenants/service/"


def create_service(tenant: str = "nagra", **changes: Any) -> Service:
    """Create a service with the dummy strategy and a passphrase."""
    fields = {"name": NAME, "strategy": "dummy", "display_name": "D", "enabled": True} | changes
    service = Service(tenant_id=tenant, **{"settings": {"passphrase": MARKER}, **fields})
    service.save()
    snapshot.invalidate(tenant)
    return service


def stored(tenant: str = "nagra") -> Service:
    return Service.objects.for_tenant(tenant).get(name=NAME)


def set_directly(service: Service, **columns: Any) -> None:
    Service.unscoped.filter(pk=service.pk).update(**columns)
    snapshot.invalidate(service.tenant_id)


def sign_on(passphrase: str | None, head_end: HeadEnd) -> int:
    """Request a session token with that passphrase; return the status code."""
    parameters = [{"name": "Account", "value": "somebody"}]
    if passphrase is not None:
        parameters.append({"name": "Passphrase", "value": passphrase})
    status: int = head_end.post({"parameters": parameters}, x_auth_service_id=NAME).status_code
    return status


def dump_database() -> str:
    """Return the content of all tables as text."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            rows += [bytes(c) if isinstance(c, memoryview) else c for row in cursor.fetchall() for c in row]
    return repr(rows)


def set_passphrase(text: Any) -> None:
    service = stored()
    service.settings["passphrase"] = text
    service.save()
    snapshot.invalidate("nagra")


def change(service: Service) -> str:
    return f"{LIST}{service.pk}/change/"


def fields(**settings: str) -> dict[str, str]:
    """Return the form data of the service; `enabled` and `remove` are checkboxes."""
    data = {"name": NAME, "display_name": "D", "logo": "", "settings-session_token_ttl": "300"}
    checkboxes = {"enabled": "enabled", "remove": "settings-passphrase-remove"}
    return data | {checkboxes.get(name, f"settings-{name}"): value for name, value in settings.items()}


def errors(page: Any) -> dict[str, Any]:
    form_errors: dict[str, Any] = page.context["adminform"].form.errors
    return form_errors


def text_of(page: Any) -> str:
    text: str = page.content.decode()
    return text


STEP_TWO = LIST + "add/?tenant=nagra&strategy=dummy"
