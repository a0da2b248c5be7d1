"""Django's PostgreSQL engine with timeouts for every statement of a serving process."""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakSet

import psycopg
from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus

from ags.database.django_connections import RESPONSE_TIMEOUT, with_timeouts
from ags.database.errors import is_connection_lost

BACKGROUND_RESPONSE_TIMEOUT = 12.0
"""Seconds after which a connection in the background is closed, if PostgreSQL hangs."""

OPEN_SECONDS = 1.0
"""Seconds for which the circuit breaker stays open, so that threads do not wait one after another."""


class _CircuitBreaker:
    """Shared by all threads: after a timeout in one of them, the statements of all fail immediately."""

    def __init__(self) -> None:
        self._open_until = 0.0

    def open(self) -> None:
        self._open_until = time.monotonic() + OPEN_SECONDS

    def close(self) -> None:
        self._open_until = 0.0

    def raise_if_open(self) -> None:
        if time.monotonic() < self._open_until:
            raise psycopg.OperationalError("PostgreSQL did not respond to a recent statement")


circuit_breaker = _CircuitBreaker()


bounded_connections: WeakSet[BoundedConnection] = WeakSet()
"""Those of this process that are open."""


class BoundedConnection(psycopg.Connection[Any]):
    """Waits at most RESPONSE_TIMEOUT for a response; closes itself after a timeout or if it is lost."""

    def close(self) -> None:
        bounded_connections.discard(self)
        super().close()

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = RESPONSE_TIMEOUT) -> Any:
        circuit_breaker.raise_if_open()
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.Error as error:
            if self.info.transaction_status == TransactionStatus.ACTIVE:  # no response, not even an error
                circuit_breaker.open()
                self.close()
            elif is_connection_lost(error.sqlstate):
                self.close()
            raise


class BackgroundConnection(psycopg.Connection[Any]):
    """For statements that no request waits for. Does not use the circuit breaker of requests."""

    def wait(
        self, gen: Any, interval: float = 0.1, timeout: float | None = BACKGROUND_RESPONSE_TIMEOUT
    ) -> Any:
        try:
            return super().wait(gen, interval, timeout)
        except psycopg.Error as error:
            is_unanswered = self.info.transaction_status == TransactionStatus.ACTIVE
            if is_unanswered or is_connection_lost(error.sqlstate):
                self.close()
            raise


class DatabaseWrapper(base.DatabaseWrapper):
    is_serving = False
    is_background = False
    """Of the connection of a thread: its statements may take longer than requests."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        if not self.is_serving:
            return super().get_new_connection(conn_params)
        if self.is_background:
            self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # as the base class does
            return BackgroundConnection.connect(**with_timeouts(conn_params))
        circuit_breaker.raise_if_open()
        try:
            self.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # as the base class does
            opened = BoundedConnection.connect(**with_timeouts(conn_params))
        except psycopg.errors.ConnectionTimeout:
            circuit_breaker.open()
            raise
        bounded_connections.add(opened)
        return opened


def limit_all_statements() -> None:
    """Enable the timeouts for this process, so that a hanging database is a 503 within two seconds."""
    DatabaseWrapper.is_serving = True
