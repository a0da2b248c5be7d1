"""Events of the audit trail, and the context of a request that causes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

from ags.api.access_log import AccessLogEntry
from ags.sessions.models import Event
from tests.support.responses import CORRELATION_ID
from tests.support.waiting import wait_until

ADDRESS = "192.0.2.1"
"""An address of a client, for documentation (RFC 5737)."""


SIGN_ON_KINDS = (Event.Kind.SIGNED_ON, Event.Kind.SIGN_ON_ENDED, Event.Kind.ACCESS_TOKEN_REVOKED)


def request_context(correlation_id: str = CORRELATION_ID) -> AccessLogEntry:
    """Return the context of a request, for a call of a service without a request."""
    return AccessLogEntry(correlation_id, "POST", ADDRESS)


def get_events(tenant_id: str = "nagra", **fields: Any) -> list[Event]:
    """Return the events of sign-ons of a tenant, in their order. Saving rows for a test causes others."""
    events = Event.objects.for_tenant(tenant_id).filter(kind__in=SIGN_ON_KINDS, **fields)
    return list(events.order_by("pk"))


@contextmanager
def reject_events(column: str = "account_id", value: str = "account-1") -> Iterator[None]:
    """Let the database reject the events with this value."""
    if connection.vendor == "postgresql":
        condition = f"CHECK ({column} <> '{value}') NOT VALID"
        create = f"ALTER TABLE ags_sessions_event ADD CONSTRAINT rejected {condition}"
        drop = "ALTER TABLE ags_sessions_event DROP CONSTRAINT rejected"
    else:
        create = f"""CREATE TRIGGER rejected BEFORE INSERT ON ags_sessions_event
                     WHEN NEW.{column} = '{value}' BEGIN SELECT RAISE(ABORT, 'rejected'); END"""
        drop = "DROP TRIGGER rejected"
    with connection.cursor() as cursor:
        cursor.execute(create)
        try:
            yield
        finally:
            cursor.execute(drop)


def find_refusal(correlation_id: str) -> Event:
    """Wait until the refusal of a request to a server is stored."""
    events = Event.unscoped.filter(correlation_id=correlation_id)
    wait_until(events.exists, f"the refusal {correlation_id} is not stored")
    return events.get()


def sum_omitted(tenant_id: str | None) -> int:
    """Return the number of refusals that were only counted, of all stored events."""
    events = Event.unscoped.filter(kind=Event.Kind.OMITTED, tenant=tenant_id)
    return sum(event.details["number"] for event in events)
