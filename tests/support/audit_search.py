"""Searches in the audit trail, as staff make them in the admin."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth.models import Permission, User
from django.test import Client

from ags.sessions.models import Event

LIST = "/admin/ags_sessions/event/"
ISSUED, SIGNED_ON, REFUSED = "Session token issued", "Signed on", "Request refused"
REUSED, ENDED = "A redeemed session token was presented again", "Sign-on ended"


def search(browser: Client, **terms: str) -> Any:
    """Submit the form. Terms of nagra, unless they contain another tenant or none."""
    return browser.post(LIST, {"tenant": "nagra", **terms}, follow=True)


def time_fields(name: str, time: datetime) -> dict[str, str]:
    return {f"{name}_0": f"{time.date()}", f"{name}_1": f"{time:%H:%M:%S}"}


def rows(page: Any) -> list[dict[str, str]]:
    """Return the rows of the result by the headers of the columns."""
    table = page.context.get("table")
    return [] if table is None else [dict(zip(table["headers"], row, strict=True)) for row in table["rows"]]


def kinds(page: Any) -> list[str]:
    return [row["kind"] for row in rows(page)]


def add_event(tenant_id: str | None = "nagra", kind: str = "refused", **fields: Any) -> Event:
    """Store an event, as a server does."""
    event: Event = Event.unscoped.create(tenant_id=tenant_id, kind=kind, **fields)
    return event


def add_permissions(user_name: str, *codenames: str) -> None:
    user = User.objects.get(username=user_name)
    user.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
