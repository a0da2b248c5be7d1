"""Exporting the audit trail as JSON lines: each event once, and none missed."""

import json
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from django.db import OperationalError, connection, transaction

from ags.database.clock import get_database_time
from ags.sessions.audit_trail import AuditEvent, Criteria, find_oldest_time, read
from ags.sessions.models import Event, SecurityEvent, SessionToken
from tenants.models import Tenant
from tenants.times import format_utc

WINDOW = timedelta(hours=1)
"""The time whose events are exported before the cursor is stored."""

DELAY = timedelta(seconds=30)
"""How old events must be. Covers steps of the database's clock."""

FOLLOW_INTERVAL = 5.0
"""Seconds between the windows of new events."""

WRITER_TIMEOUT = 300.0
"""Seconds to wait for a transaction that may store older events."""

WRITER_INTERVAL = 0.1

CLOCK_RESOLUTION = timedelta(milliseconds=1)
"""Of SQLite, which compares times as texts: 01.123 is earlier than 01.123000."""

MAX_CURSOR_BYTES = 1_000_000


class ExportFailed(Exception):
    """The message is for the operator."""


class Sink(Protocol):
    """Where events go. Both methods raise OSError."""

    def write(self, event: AuditEvent) -> None: ...

    def flush(self) -> None:
        """Return when all events have been handed over."""


def format_event(event: AuditEvent) -> str:
    """Return a line of JSON. Its names are an interface: docs/running/audit-export.md."""
    return json.dumps(
        {
            "id": event.id,
            "time": format_timestamp(event.time),
            "kind": event.kind,
            "tenant": event.tenant_id,
            "service": event.service or None,
            "kid": event.kid or None,
            "correlation_id": event.correlation_id or None,
            "client_address": event.client_address,
            "account_id": event.account_id or None,
            "client_id": event.client_id or None,
            "actor": event.actor or None,
            "reason": event.reason or None,
            "details": event.details,
        }
    )


def format_timestamp(time: datetime) -> str:
    """Return a timestamp of RFC 3339, in UTC."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


class Cursor:
    """A file with the position of an export, and the tenants that it is for; None for all events."""

    def __init__(self, path: Path, tenant_ids: Collection[str] | None) -> None:
        self._path = path
        self._tenant_ids = None if tenant_ids is None else sorted(set(tenant_ids))

    def load(self) -> datetime | None:
        """Return None if there is no file. Raises ExportFailed and OSError."""
        try:
            with self._path.open("rb") as file:
                raw = file.read(MAX_CURSOR_BYTES)
        except FileNotFoundError:
            return None
        try:
            stored = json.loads(raw)
            tenant_ids, position = stored["tenants"], datetime.fromisoformat(stored["position"])
        except (ValueError, KeyError, TypeError):
            raise ExportFailed(f"{self._path} is not a cursor of export_events.") from None
        if tenant_ids != self._tenant_ids:
            names = "all tenants" if tenant_ids is None else ", ".join(map(str, tenant_ids))
            raise ExportFailed(f"{self._path} is the cursor of an export of {names}. Use another file.")
        if position.tzinfo is None:
            raise ExportFailed(f"{self._path} is not a cursor of export_events.")
        return position

    def store(self, position: datetime) -> None:
        """Raises OSError. The file has the old position or the new one, also after a power failure."""
        content = json.dumps({"position": format_timestamp(position), "tenants": self._tenant_ids}) + "\n"
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("w", encoding="ascii") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventExport:
    """`tenant_ids` None: all events, also those of no tenant. `since` is for the first run of a cursor."""

    sink: Sink
    tenant_ids: Collection[str] | None = None
    since: datetime | None = None
    until: datetime | None = None
    delay: timedelta = DELAY
    cursor: Cursor | None = None

    def run(self, *, follow: bool = False) -> None:
        """Export the events, and with `follow` new ones until `until`. Raises ExportFailed and OSError.

        An event is visible when its transaction commits, after its time. So a window ends before the oldest
        event that may still be invisible, and the next window begins there.
        """
        stored = self.cursor.load() if self.cursor else None
        position = self.since if stored is None else stored
        if position is not None and position > (now := get_database_time()):
            raise ExportFailed(
                f"The export would begin at {format_utc(position)}, but the database's clock is at "
                f"{format_utc(now)}. If the database was restored, use a new cursor and --since."
            )
        horizon = self._find_horizon()
        position = self._skip_to_oldest(position, horizon)
        if stored is None:
            self._store(position)  # an error occurs before the first line
        while True:
            position = self._export_windows(position, horizon)
            if not follow or (self.until is not None and position >= self.until):
                return
            time.sleep(FOLLOW_INTERVAL)
            horizon = self._find_horizon()

    def _find_horizon(self) -> datetime:
        """Return the end of what can be exported: no event of an earlier time will become visible."""
        horizon = get_database_time() - self.delay
        wait_for_writers()
        return horizon if self.until is None else min(horizon, self.until)

    def _skip_to_oldest(self, position: datetime | None, horizon: datetime) -> datetime:
        criteria = Criteria(since=position, until=horizon)
        times = [find_oldest_time(tenant_id, criteria) for tenant_id in self._list_tenants()]
        oldest = min((time for time in times if time is not None), default=horizon) - CLOCK_RESOLUTION
        return oldest if position is None else max(oldest, position)

    def _export_windows(self, start: datetime, horizon: datetime) -> datetime:
        while start < horizon:
            end = min(start + WINDOW, horizon)
            for tenant_id in self._list_tenants():
                for event in read(tenant_id, Criteria(since=start, until=end)):
                    self.sink.write(event)
            self.sink.flush()
            self._store(end)
            start = end
        return start

    def _list_tenants(self) -> Collection[str | None]:
        if self.tenant_ids is not None:
            return self.tenant_ids
        return [None, *Tenant.objects.order_by("pk").values_list("pk", flat=True)]

    def _store(self, position: datetime) -> None:
        if self.cursor is not None:
            self.cursor.store(position)


def wait_for_writers() -> None:
    """Wait until all transactions have ended that may have stored events before now.

    Raises ExportFailed after `WRITER_TIMEOUT`.
    """
    limit = time.monotonic() + WRITER_TIMEOUT
    find_writers = _find_writers if connection.vendor == "postgresql" else _find_sqlite_writer
    writers = find_writers()
    while writers:
        if time.monotonic() > limit:
            names = ", ".join(sorted({str(holder) for _, holder in writers}))
            raise ExportFailed(
                f"A transaction that may have stored events has been open for {WRITER_TIMEOUT:.0f} seconds: "
                f"{names}. End it: until then, an export could miss its events."
            )
        time.sleep(WRITER_INTERVAL)
        writers &= find_writers()


def _find_writers() -> set[tuple[str, str]]:
    """Return the transactions that have written to the tables of events, each with a description.

    Every statement that writes to a table locks it in this mode until the end of its transaction.
    """
    tables = [model._meta.db_table for model in (Event, SecurityEvent, SessionToken)]
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT DISTINCT virtualtransaction, coalesce('pid ' || pid, 'a prepared transaction')
              FROM pg_locks
             WHERE locktype = 'relation' AND mode = 'RowExclusiveLock'
               AND relation IN (SELECT oid FROM pg_class WHERE relname = ANY(%s) AND pg_table_is_visible(oid))
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND pid IS DISTINCT FROM pg_backend_pid()
            """,
            [tables],
        )
        return set(cursor.fetchall())


def _find_sqlite_writer() -> set[tuple[str, str]]:
    """There is one writer at a time, so none is left when this connection can be the writer."""
    if connection.in_atomic_block:
        return set()
    try:
        with transaction.atomic():
            return set()
    except OperationalError:
        return {("", "another process writes to the database")}
