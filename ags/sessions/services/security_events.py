"""Recording signs of stolen tokens."""

import logging
from collections.abc import Sequence

from ags.database import INSERTS, fetch_all
from ags.database.batching import Batcher
from ags.sessions.models import SecurityEvent
from ags.sessions.sql import functions as sql

log = logging.getLogger("ags.security")


async def record(
    tenant_id: str, kind: SecurityEvent.Kind, subject: str, account_id: str, correlation_id: str
) -> None:
    """Store the event, or increment its counter. Committed when this returns."""
    row: sql.Row = {
        "tenant": tenant_id,
        "kind": kind,
        "subject": subject,
        "account": account_id,
        "correlation": correlation_id,
    }
    await _events.submit(row)
    log.warning(
        "security event", extra={"tenant": tenant_id, "kind": str(kind), "correlation_id": correlation_id}
    )


async def _record(rows: Sequence[sql.Row]) -> list[None]:
    # An upsert cannot change a row twice, so repetitions within the batch are counted here.
    events: dict[tuple[str, str, str], sql.Row] = {}
    for row in rows:
        key = row["tenant"], row["kind"], row["subject"]
        times = events[key]["times"] if key in events else 0
        events[key] = {**row, "times": times + 1}
    await fetch_all(_record_sql(), sql.values_params([*events.values()]), INSERTS)
    return [None] * len(rows)


_events = Batcher("security_event", _record)


@sql.cached_sql
def _record_sql() -> str:
    values = sql.values_table(
        tenant="text", kind="text", subject="text", account="text", correlation="text", times="integer"
    )
    # Ordered, so that concurrent statements cannot deadlock.
    return f"""
INSERT INTO ags_sessions_securityevent
       (tenant_id, kind, subject, account_id, correlation_id, first_at, latest_at, times)
SELECT g.tenant, g.kind, g.subject, g.account, g.correlation, {sql.now()}, {sql.now()}, g.times
  FROM {values} AS g
 WHERE TRUE
 ORDER BY g.tenant, g.kind, g.subject
    ON CONFLICT (tenant_id, kind, subject) DO UPDATE
   SET times = ags_sessions_securityevent.times + excluded.times, latest_at = excluded.latest_at,
       correlation_id = excluded.correlation_id
"""  # noqa: S608 - built from constants
