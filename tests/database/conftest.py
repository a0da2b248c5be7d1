"""Connections to the database of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test import override_settings

from ags.database import async_connection, threads
from tests.support.database import database_url
from tests.support.postgresql import LOCK, NAME, Observer
from tests.support.transactions import COMMIT_FAILS, COMMIT_WAITS
from tests.support.waiting import PATIENCE


@pytest.fixture
def options(db: None, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
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
    monkeypatch.setattr(async_connection, "RESPONSE_TIMEOUT", PATIENCE)
    with override_settings(AGS_DATABASE_POOLER="transaction"):  # no timeouts of PostgreSQL
        yield


@pytest.fixture
def table(options: dict[str, Any]) -> Iterator[None]:
    """A table of numbers. `other` terminates open transactions before the table is dropped."""
    with psycopg.connect(database_url(), autocommit=True) as pg:
        pg.execute("CREATE TABLE numbers (number integer PRIMARY KEY)")
        pg.execute(
            f"""
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.number = {COMMIT_FAILS} THEN RAISE EXCEPTION 'refused' USING ERRCODE = '23514'; END IF;
  IF NEW.number = {COMMIT_WAITS} THEN PERFORM pg_advisory_xact_lock({LOCK}); END IF;
  RETURN NULL;
END $$"""
        )
        pg.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON numbers DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION at_commit()"
        )
        yield
        pg.execute("DROP TABLE numbers")
        pg.execute("DROP FUNCTION at_commit")


@pytest.fixture
def unlimited_time(no_timeouts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable all timeouts."""
    monkeypatch.setattr(threads, "QUEUE_TIMEOUT", PATIENCE)
