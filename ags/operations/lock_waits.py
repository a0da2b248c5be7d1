"""Short waits for locks while the schema of PostgreSQL changes, and who holds them (decision 0020)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import LockNotAvailable
from psycopg.pq import TransactionStatus

LOCK_TIMEOUT = "100ms"
"""Requests queue behind a statement that waits for a lock; `serve` gives theirs 1.5 s."""

_POLL = 0.02  # seconds: several times within LOCK_TIMEOUT

_SHOWN = 3  # holders of one lock

_LIMIT = f"""
    SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true),
           set_config('statement_timeout', '0', true),
           pg_backend_pid()
"""

# Without the text of their statements, which may hold secrets.
_HOLDERS = """
    SELECT coalesce(waiting.relation::regclass::text, waiting.locktype),
           blocker.pid, coalesce(nullif(holder.application_name, ''), holder.backend_type), holder.usename,
           to_char(holder.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      FROM pg_locks waiting
           CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocker(pid)
           LEFT JOIN pg_stat_activity holder ON holder.pid = blocker.pid
     WHERE waiting.pid = %s AND NOT waiting.granted
     ORDER BY holder.xact_start, blocker.pid
"""

_INVALID_INDEXES = """
    SELECT tables.relname, indexes.relname
      FROM pg_index
           JOIN pg_class tables ON tables.oid = indrelid
           JOIN pg_class indexes ON indexes.oid = indexrelid
     WHERE NOT indisvalid AND tables.relname = ANY(%s) AND pg_table_is_visible(indrelid)
"""


class LockWaits:
    """Limits how long the statements of one connection wait for locks.

    `holders` says who held the lock that the latest statement failed to get. `report` is called, in another
    thread, with the same about a statement that may wait without a limit.
    """

    def __init__(self, alias: str, report: Callable[[str], None]) -> None:
        self.holders = ""
        self._alias = alias
        self._report = report
        self._seen = ""
        self._pid = 0  # of the PostgreSQL process that executes the statement
        self._is_running = self._is_limited = False
        self._end = threading.Event()

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit the statements of this thread. A wait that is too long raises OperationalError."""
        watcher = threading.Thread(target=self._watch, name="lock-waits", daemon=True)
        with ExitStack() as stack:
            stack.enter_context(connections[self._alias].execute_wrapper(self._execute))
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(self._end.set)
            yield

    def _execute(self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        database: BaseDatabaseWrapper = context["connection"]
        pg = database.connection
        if not database.in_atomic_block:
            if "CONCURRENTLY" not in str(sql).upper():
                # The limit is set for one transaction: behind a pooler, the next may be somebody else's.
                with transaction.atomic(using=self._alias):
                    return self._execute(execute, sql, params, many, context)
            # It cannot run in a transaction, and holds nobody back while it waits.
            self._pid = pg.info.backend_pid
        elif pg.info.transaction_status == TransactionStatus.IDLE:
            with database.wrap_database_errors:
                *_, self._pid = pg.execute(_LIMIT, prepare=False).fetchone()
        self._seen = ""
        self._is_limited = database.in_atomic_block
        self._is_running = True
        try:
            return execute(sql, params, many, context)
        except DatabaseError as error:
            if is_lock_timeout(error):
                self.holders = self._seen or "a lock: its holder was gone before it was seen"
            raise
        finally:
            self._is_running = False

    def _watch(self) -> None:
        database = connections[self._alias]  # this thread's own
        try:
            database.ensure_connection()
            while not self._end.wait(_POLL):
                if self._is_running:
                    self._look(database)
        except DatabaseError:  # then nobody is named; the migration goes on
            return
        finally:
            database.close()

    def _look(self, database: BaseDatabaseWrapper) -> None:
        with database.cursor() as cursor:
            cursor.execute(_HOLDERS, [self._pid])
            holders = cursor.fetchall()
        if not holders:
            return
        ((lock, *_), *_) = holders
        names = [holder_name(*holder) for _, *holder in holders[:_SHOWN]]
        more = [f"{len(holders) - _SHOWN} more"] if len(holders) > _SHOWN else []
        seen = f"a lock on {lock}, held by {', '.join([*names, *more])}"
        if seen != self._seen and not self._is_limited:
            self._report(seen)
        self._seen = seen


def holder_name(pid: int, application: str | None, user: str | None, since: str | None) -> str:
    """Return who holds a lock, by what PostgreSQL shows of it (decision 0020)."""
    if not pid:
        return "a prepared transaction"
    # Its own processes, such as autovacuum, have no user.
    name = application or ("an unnamed application" if user else "a process of PostgreSQL")
    known = [f"pid {pid}"]
    known += [f"user {user}"] if user else []
    known += [f"in a transaction since {since}"] if since else []
    return f"{name} ({', '.join(known)})"


def is_lock_timeout(error: DatabaseError) -> bool:
    """Return whether a statement failed because it did not get a lock in time."""
    return isinstance(error.__cause__, LockNotAvailable)


def drop_invalid_indexes(database: BaseDatabaseWrapper, tables: Collection[str]) -> list[str]:
    """Drop what an interrupted CONCURRENTLY left on these tables; return the names of the indexes.

    Raises OperationalError if a table has an index that is being built.
    """
    with transaction.atomic(using=database.alias), database.cursor() as cursor:
        for table in {table for table, _ in _invalid_indexes(cursor, tables)}:
            # Whoever builds an index has this lock. It conflicts with no request.
            cursor.execute(f"LOCK TABLE {database.ops.quote_name(table)} IN SHARE UPDATE EXCLUSIVE MODE")
        names = [index for _, index in _invalid_indexes(cursor, tables)]
    with database.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {database.ops.quote_name(name)}")
    return names


def _invalid_indexes(cursor: Any, tables: Collection[str]) -> list[tuple[str, str]]:
    cursor.execute(_INVALID_INDEXES, [list(tables)])
    found: list[tuple[str, str]] = cursor.fetchall()
    return found
