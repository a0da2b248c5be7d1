"""Django's database engine for PostgreSQL, whose statements end in time in a process that serves requests."""

from __future__ import annotations

import time
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from ags.database.django_connections import ANSWER_LIMIT, is_lost, with_limits

PAUSE = 1.0
"""Seconds in which a PostgreSQL that was stuck is not asked: else threads wait for it in turn."""


class _Pause:
    """Shared by all threads: once one has found PostgreSQL stuck, the others do not wait for it."""

    def __init__(self) -> None:
        self._ends = 0.0

    def begin(self) -> None:
        self._ends = time.monotonic() + PAUSE

    def end(self) -> None:
        self._ends = 0.0

    def refuse(self) -> None:
        if time.monotonic() < self._ends:
            raise psycopg.OperationalError("PostgreSQL was stuck a moment ago")


pause = _Pause()
"""That of this process."""


class BoundedConnection(psycopg.Connection[Any]):
    """Waits for an answer for at most `ANSWER_LIMIT`, and closes itself where it is of no use any more."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = ANSWER_LIMIT) -> Any:
        """Run an operation of the connection. Raises psycopg's errors."""
        pause.refuse()
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.Error as error:
            if self.info.transaction_status == TransactionStatus.ACTIVE:  # no answer came, not even an error
                pause.begin()
                self.close()
            elif is_lost(error.sqlstate):
                self.close()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    """Django's own, but for the connections of a process that serves requests."""

    is_serving = False

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect to PostgreSQL. Raises psycopg's errors."""
        if not self.is_serving:
            return super().get_new_connection(conn_params)
        pause.refuse()
        try:
            self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # as the base does
            return BoundedConnection.connect(**with_limits(conn_params))
        except psycopg.errors.ConnectionTimeout:
            pause.begin()
            raise


def bound_all_statements() -> None:
    """Give every statement of this process an end: a stuck database is a 503 within two seconds."""
    DatabaseWrapper.is_serving = True
