"""The circuit breaker of Django's connections to PostgreSQL."""

import time

import psycopg

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
