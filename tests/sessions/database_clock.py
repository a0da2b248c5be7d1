"""The clock of the database, by which tokens and sign-ons live and die."""

from __future__ import annotations

from datetime import datetime

from django.db.models.functions import Now

from tenants.models import Tenant
from tests.waiting import wait_until


def database_now() -> datetime:
    """Return its time: on SQLite in whole milliseconds. There must be a tenant."""
    now: datetime = Tenant.objects.annotate(now=Now()).values_list("now", flat=True)[0]
    return now


def let_clock_move() -> None:
    """Wait until what is written next has a later time than all that was written before."""
    before = database_now()
    wait_until(lambda: database_now() > before, "the clock of the database stands still")
