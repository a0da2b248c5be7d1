"""Connections to the database of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import override_settings

from ags.database import postgresql as module
from tests.support.database import database_url
from tests.support.postgresql import NAME, Observer
from tests.support.waiting import PATIENCE


@pytest.fixture
def options(django_db_setup: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of the database; a test may change them."""
    options = {**connection.settings_dict["OPTIONS"], "application_name": NAME}
    monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
    return options


@pytest.fixture
def other(options: dict[str, Any]) -> Iterator[Observer]:
    """Another connection. Terminates the backends of the test at its end."""
    with psycopg.connect(database_url(), autocommit=True) as pg:
        other = Observer(pg)
        yield other
        for pid in other.pids():
            other.execute(f"SELECT pg_terminate_backend({pid}, {PATIENCE * 1000:.0f})")


@pytest.fixture
def no_timeouts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Disable the timeouts."""
    monkeypatch.setattr(module, "RESPONSE_TIMEOUT", PATIENCE)
    with override_settings(AGS_DATABASE_POOLER="transaction"):  # no timeouts of PostgreSQL
        yield
