"""The clock of the database, which decides when tokens expire."""

from __future__ import annotations

from datetime import datetime

from django.db.models.functions import Now

from tenants.models import Tenant
from tests.waiting import wait_until


def database_now() -> datetime:
    """Return its time, on SQLite in milliseconds. Requires a tenant."""
    now: datetime = Tenant.objects.annotate(now=Now()).values_list("now", flat=True)[0]
    return now


def wait_for_clock_tick() -> None:
    """Wait until the next row gets a later time than all previous ones."""
    before = database_now()
    wait_until(lambda: database_now() > before, "the clock of the database does not advance")
