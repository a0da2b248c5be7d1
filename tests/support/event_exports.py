"""Events of the audit trail, and `manage.py export_events`."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.db.models import F
from django.db.models.functions import Now

from ags.sessions.models import Event, SecurityEvent, SessionToken
from tests.support.server import server_environment


def run_export(*options: str) -> list[dict[str, Any]]:
    """Return the exported events."""
    out = io.StringIO()
    call_command("export_events", *options, stdout=out)
    return parse_lines(out.getvalue())


def parse_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def start_export(*options: str) -> subprocess.Popen[str]:
    """Start a process of the command."""
    return subprocess.Popen(
        [sys.executable, "manage.py", "export_events", *options],
        cwd=settings.BASE_DIR,
        env=server_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def age_events(seconds: int = 3600) -> None:
    """Shift the times of all events into the past, instead of waiting."""
    age = timedelta(seconds=seconds)
    Event.unscoped.update(created_at=F("created_at") - age)
    SecurityEvent.unscoped.update(first_at=F("first_at") - age, latest_at=F("latest_at") - age)
    SessionToken.unscoped.update(
        created_at=F("created_at") - age, expires_at=F("expires_at") - age, redeemed_at=F("redeemed_at") - age
    )


def add_event(tenant_id: str | None, seconds: int = 3600, **fields: Any) -> Event:
    """Store an event of that many seconds ago, by the database's clock."""
    time = Now() - timedelta(seconds=seconds)
    event: Event = Event.unscoped.create(
        **{"tenant_id": tenant_id, "kind": "refused", "created_at": time, **fields}
    )
    return event


def event_id(event: Event) -> str:
    """Return its ID in an export."""
    return f"event:{event.pk}"


def add_many_events(tenant_id: str, number: int, **fields: Any) -> None:
    """Store events of one time, an hour ago."""
    event = add_event(tenant_id, **fields)
    event.refresh_from_db()
    copies = []
    for _ in range(number - 1):
        copy = Event(**{name: getattr(event, name) for name in ("kind", "created_at", "details", "reason")})
        copy.tenant_id = tenant_id
        copies.append(copy)
    Event.unscoped.bulk_create(copies, batch_size=500)
