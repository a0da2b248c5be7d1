"""Limits on lock waits during PostgreSQL migrations, and reports of lock holders (decision 0020)."""

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import LockNotAvailable
from psycopg.pq import TransactionStatus

LOCK_TIMEOUT = "100ms"
"""Requests queue behind a statement that waits for a lock; their own limit in `serve` is 1.5 s."""

_POLL_INTERVAL = 0.02  # seconds: several times within LOCK_TIMEOUT

_MAX_REPORTED_HOLDERS = 3  # of one lock

_SET_TIMEOUTS_SQL = f"""
    SELECT set_config('lock_timeout', '{LOCK_TIMEOUT}', true),
           set_config('statement_timeout', '0', true),
           pg_backend_pid()
"""

# Without the statements of the holders, which may contain secrets, and without this statement: building an
# index concurrently waits for it, too.
_HOLDERS_SQL = """
    SELECT coalesce(waiting.relation::regclass::text, waiting.locktype),
           blocker.pid, coalesce(nullif(holder.application_name, ''), holder.backend_type), holder.usename,
           to_char(holder.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"')
      FROM pg_locks waiting
           CROSS JOIN unnest(pg_blocking_pids(waiting.pid)) AS blocker(pid)
           LEFT JOIN pg_stat_activity holder ON holder.pid = blocker.pid
     WHERE waiting.pid = %s AND NOT waiting.granted AND blocker.pid <> pg_backend_pid()
     ORDER BY holder.xact_start, blocker.pid
"""

_INVALID_INDEXES_SQL = """
    SELECT tables.relname, indexes.relname
      FROM pg_index
           JOIN pg_class tables ON tables.oid = indrelid
           JOIN pg_class indexes ON indexes.oid = indexrelid
     WHERE NOT indisvalid AND tables.relname = ANY(%s) AND pg_table_is_visible(indrelid)
"""


class LockWaits:
    """Limits how long the statements of one connection wait for locks.

    `holders` describes the lock that the latest statement failed to acquire, and its holders. `report` is
    called with such a description, in another thread, while a statement waits without a limit.
    """

    def __init__(self, alias: str, report: Callable[[str], None]) -> None:
        self.holders = ""
        self._alias = alias
        self._report = report
        self._last_seen = ""
        self._backend_pid = 0
        self._is_running = self._is_limited = False
        self._stop = threading.Event()

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Limit the statements of this thread. They raise OperationalError after `LOCK_TIMEOUT`."""
        watcher = threading.Thread(target=self._watch, name="lock-waits", daemon=True)
        with connections[self._alias].execute_wrapper(self._execute):
            watcher.start()
            try:
                yield
            finally:
                self._stop.set()
                watcher.join()

    def _execute(self, execute: Any, sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
        database: BaseDatabaseWrapper = context["connection"]
        pg = database.connection
        if not database.in_atomic_block:
            if "CONCURRENTLY" not in str(sql).upper():
                # The limit is set for a transaction: behind a pooler, another client may have the next one.
                with transaction.atomic(using=self._alias):
                    return self._execute(execute, sql, params, many, context)
            # A CONCURRENTLY statement cannot run in a transaction, and blocks nobody while it waits.
            self._backend_pid = pg.info.backend_pid
        elif pg.info.transaction_status == TransactionStatus.IDLE:
            with database.wrap_database_errors:
                *_, self._backend_pid = pg.execute(_SET_TIMEOUTS_SQL, prepare=False).fetchone()
        self._last_seen = ""
        self._is_limited = database.in_atomic_block
        self._is_running = True
        try:
            return execute(sql, params, many, context)
        except DatabaseError as error:
            if is_lock_timeout(error):
                self.holders = self._last_seen or "a lock, whose holder could not be determined"
            raise
        finally:
            self._is_running = False

    def _watch(self) -> None:
        database = connections[self._alias]  # connections are local to a thread
        try:
            database.ensure_connection()
            while not self._stop.wait(_POLL_INTERVAL):
                if self._is_running:
                    self._observe_holders(database)
        except DatabaseError:  # the migration continues without reports
            return
        finally:
            database.close()

    def _observe_holders(self, database: BaseDatabaseWrapper) -> None:
        with database.cursor() as cursor:
            cursor.execute(_HOLDERS_SQL, [self._backend_pid])
            holders = cursor.fetchall()
        if not holders:
            return
        ((lock, *_), *_) = holders
        names = [describe_holder(*holder) for _, *holder in holders[:_MAX_REPORTED_HOLDERS]]
        if len(holders) > _MAX_REPORTED_HOLDERS:
            names.append(f"{len(holders) - _MAX_REPORTED_HOLDERS} more")
        seen = f"a lock on {lock}, held by {', '.join(names)}"
        if seen != self._last_seen and not self._is_limited:
            self._report(seen)
        self._last_seen = seen


def describe_holder(pid: int, application: str | None, user: str | None, since: str | None) -> str:
    if not pid:
        return "a prepared transaction"
    # PostgreSQL's own processes, such as autovacuum, have no user.
    name = application or ("an unnamed application" if user else "a process of PostgreSQL")
    details = [f"pid {pid}"]
    details += [f"user {user}"] if user else []
    details += [f"in a transaction since {since}"] if since else []
    return f"{name} ({', '.join(details)})"


def is_lock_timeout(error: DatabaseError) -> bool:
    return isinstance(error.__cause__, LockNotAvailable)


def drop_invalid_indexes(database: BaseDatabaseWrapper, tables: Collection[str]) -> list[str]:
    """Raises OperationalError if an index of a table is being built."""
    with transaction.atomic(using=database.alias), database.cursor() as cursor:
        for table in {table for table, _ in _invalid_indexes(cursor, tables)}:
            # Building an index takes this lock, too. It does not conflict with requests.
            cursor.execute(f"LOCK TABLE {database.ops.quote_name(table)} IN SHARE UPDATE EXCLUSIVE MODE")
        names = [index for _, index in _invalid_indexes(cursor, tables)]
    with database.cursor() as cursor:
        for name in names:
            cursor.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {database.ops.quote_name(name)}")
    return names


def _invalid_indexes(cursor: Any, tables: Collection[str]) -> list[tuple[str, str]]:
    cursor.execute(_INVALID_INDEXES_SQL, [list(tables)])
    indexes: list[tuple[str, str]] = cursor.fetchall()
    return indexes
