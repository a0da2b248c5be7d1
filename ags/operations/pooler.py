"""Detection of a connection pooler between AGS and PostgreSQL that is incompatible with the settings."""

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.pq import ExecStatus

from ags.database.django_connections import RESPONSE_TIMEOUT, TIMEOUTS, with_timeouts

ATTEMPTS = 3
"""How often a pooler is tested, because its answers can differ."""


class StartupOptionsLost(Exception):
    """A pooler rejects or drops the startup options for PostgreSQL."""


def check_options() -> None:
    """Connect as the server does. Raises StartupOptionsLost, or psycopg's errors if it cannot connect."""
    if settings.AGS_DATABASE_POOLER != "none":
        return
    sources: set[str] = set()
    for _ in range(ATTEMPTS):
        try:
            with _connect() as pg:
                sources = {source for _, source in _limits(pg).values()}
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError:
            # Error messages differ between poolers, and libpq has no SQLSTATE for a failed connection. But
            # behind a pooler, connecting without the options always succeeds. To a PostgreSQL that starts up
            # or has no free connection, it fails, too.
            psycopg.connect(**connection.get_connection_params()).close()
        else:
            break
    if sources != {"client"}:
        raise StartupOptionsLost


def loses_prepared_statements() -> bool:
    if connection.get_connection_params()["prepare_threshold"] is None:
        return False
    with _connect() as first, _connect() as second:
        return _is_pooled(first, second) and not _supports_prepared_statements(first)


def role_defaults() -> tuple[list[str], str]:
    """Return the limits that a new connection lacks or that outlive a request, and its time zone."""
    with _connect() as pg:
        limits, time_zone = _limits(pg), pg.info.parameter_status("TimeZone") or ""
    return [name for name in TIMEOUTS if not 0 < limits[name][0] < RESPONSE_TIMEOUT * 1000], time_zone


@contextmanager
def _connect() -> Iterator[psycopg.Connection[Any]]:
    parameters = with_timeouts(connection.get_connection_params()) | {"prepare_threshold": None}
    with closing(psycopg.connect(**parameters, autocommit=True)) as pg:
        yield pg


def _limits(pg: psycopg.Connection[Any]) -> dict[str, tuple[int, str]]:
    """Return milliseconds and source of each limit; the source of a startup option is `client`."""
    query = "SELECT name, setting::integer, source FROM pg_settings WHERE name = ANY(%s)"
    return {name: (value, source) for name, value, source in pg.execute(query, [list(TIMEOUTS)])}


def _is_pooled(first: psycopg.Connection[Any], second: psycopg.Connection[Any]) -> bool:
    """Return True if `first` uses several backends of PostgreSQL, or shares one with `second`.

    `first` is queried twice in each attempt: otherwise a round-robin pooler could give each connection the
    same backend every time.
    """
    attempts = [(_backend_pid(first), _backend_pid(first), _backend_pid(second)) for _ in range(ATTEMPTS)]
    first_pids = {pid for *pids, _ in attempts for pid in pids}
    return len(first_pids) > 1 or any(pid in first_pids for *_, pid in attempts)


def _backend_pid(pg: psycopg.Connection[Any]) -> Any:
    return pg.execute("SELECT pg_backend_pid()").fetchone()


def _supports_prepared_statements(pg: psycopg.Connection[Any]) -> bool:
    # A pooler that supports them renames each statement, because the names of its clients can collide.
    name = f"ags_{uuid.uuid4().hex}"
    with pg.transaction():
        if pg.pgconn.prepare(name.encode(), b"SELECT 1").status != ExecStatus.COMMAND_OK:
            return False
        rows = pg.execute("SELECT 1 FROM pg_prepared_statements WHERE name = %s", [name]).fetchall()
        if rows:
            pg.execute(f"DEALLOCATE {name}")  # DEALLOCATE takes no parameters
    return not rows
