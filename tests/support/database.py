"""The database of the tests: its URL, its statements and its failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import psycopg
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from ags.database.clock import get_database_time
from tests.support.waiting import wait_until


@contextmanager
def database_unavailable() -> Iterator[None]:
    """Make every statement fail as without a database server."""

    def fail(*_: Any) -> None:
        raise OperationalError("connection to server failed: marker-4711")

    with connection.execute_wrapper(fail):
        yield


def database_url() -> str:
    """Return DATABASE_URL for the database of the tests."""
    its = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{its['NAME']}"
    login = ":".join(quote(str(its[part]), safe="") for part in ("USER", "PASSWORD"))
    socket_folder = its["OPTIONS"].get("host") or (its["HOST"] if its["HOST"].startswith("/") else "")
    if socket_folder:
        return f"postgresql://{login}@/{its['NAME']}?host={socket_folder}"
    return f"postgresql://{login}@{its['HOST']}:{its['PORT'] or 5432}/{its['NAME']}"


@contextmanager
def empty_database(suffix: str, options: str = "") -> Iterator[str]:
    """Create a database on the PostgreSQL of the tests, yield its URL, and drop it."""
    name = f"{connection.settings_dict['NAME']}_{suffix}"
    with psycopg.connect(database_url(), autocommit=True) as its:
        its.execute(f'DROP DATABASE IF EXISTS "{name}"')  # from an interrupted run
        its.execute(f'CREATE DATABASE "{name}" {options}')
        try:
            yield database_url().replace(f"/{connection.settings_dict['NAME']}", f"/{name}")
        finally:
            its.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def wait_for_clock_tick() -> None:
    """Wait until the next row gets a later time than all previous ones."""
    before = get_database_time()
    wait_until(lambda: get_database_time() > before, "the clock of the database does not advance")


TRANSACTION = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")


def get_verbs(captured: CaptureQueriesContext) -> list[str]:
    """Return the verbs of the statements, without those of transactions."""
    first_words = (query["sql"].split()[0] for query in captured)
    return [word for word in first_words if word not in TRANSACTION]
