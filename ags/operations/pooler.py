"""What a pooler between AGS and PostgreSQL does to the connections of the server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.pq import ExecStatus

from ags.database.django_connections import ANSWER_LIMIT, LIMITS, with_limits

LOOKS = 3
"""How often a pooler is asked the same."""


class OptionsLost(Exception):
    """PostgreSQL does not get the start-up options, because a pooler refuses or drops them."""


def check_options() -> None:
    """Connect as the server does. Raises OptionsLost, or psycopg's errors if the database is not there."""
    if settings.AGS_DATABASE_POOLER != "none":
        return
    for _ in range(LOOKS):
        try:
            with _connection() as one:
                sources = {source for _, source in _limits(one).values()}
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError:
            # Poolers refuse in words of their own, and libpq tells no SQLSTATE of a connection that fails. A
            # pooler lets us in without the options, each time; a server that is full or starts up does not.
            psycopg.connect(**connection.get_connection_params()).close()
        else:
            break
    else:
        raise OptionsLost
    if sources != {"client"}:
        raise OptionsLost


def loses_prepared_statements() -> bool:
    """Whether the server prepares statements that a pooler does not know. Raises psycopg's errors."""
    if connection.get_connection_params()["prepare_threshold"] is None:
        return False
    with _connection() as one, _connection() as other:
        return _is_pooled(one, other) and not _keeps_prepared_statements(one)


def role_defaults() -> tuple[list[str], str]:
    """Return which limits a new connection lacks, and its time zone. Raises psycopg's errors.

    A limit that is longer than the server waits is none: the statement would go on without it.
    """
    with _connection() as one:
        limits, time_zone = _limits(one), one.info.parameter_status("TimeZone") or ""
    return [name for name in LIMITS if not 0 < limits[name][0] < ANSWER_LIMIT * 1000], time_zone


@contextmanager
def _connection() -> Iterator[psycopg.Connection[Any]]:
    parameters = with_limits(connection.get_connection_params()) | {"prepare_threshold": None}
    with closing(psycopg.connect(**parameters, autocommit=True)) as one:
        yield one


def _limits(one: psycopg.Connection[Any]) -> dict[str, tuple[int, str]]:
    """Return milliseconds and source of each limit; the source of a start-up option is `client`."""
    query = "SELECT name, setting::integer, source FROM pg_settings WHERE name = ANY(%s)"
    return {name: (value, source) for name, value, source in one.execute(query, [list(LIMITS)])}


def _is_pooled(one: psycopg.Connection[Any], other: psycopg.Connection[Any]) -> bool:
    """Whether `one` leads to several connections of PostgreSQL, or to the same as `other`.

    `one` is asked twice: else a pooler that takes its connections in turn might give each always the same.
    """
    pids = [(_pid(one), _pid(one), _pid(other)) for _ in range(LOOKS)]
    ones = {pid for *pair, _ in pids for pid in pair}
    return len(ones) > 1 or any(pid in ones for *_, pid in pids)


def _pid(one: psycopg.Connection[Any]) -> Any:
    return one.execute("SELECT pg_backend_pid()").fetchone()


def _keeps_prepared_statements(one: psycopg.Connection[Any]) -> bool:
    """Whether the pooler looks after prepared statements.

    Clients choose the same names, so it then gives each statement a name of its own. Nothing stays behind.
    """
    name = f"ags_{uuid.uuid4().hex}"
    with one.transaction():
        if one.pgconn.prepare(name.encode(), b"SELECT 1").status != ExecStatus.COMMAND_OK:
            return False
        rows = one.execute("SELECT 1 FROM pg_prepared_statements WHERE name = %s", [name]).fetchall()
        if rows:
            one.execute(f"DEALLOCATE {name}")  # no parameter can name it
    return not rows
