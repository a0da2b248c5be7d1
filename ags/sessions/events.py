"""Recording what points at a stolen token."""

from __future__ import annotations

import logging

from ags.database import fetch_all
from ags.sessions import sql
from ags.sessions.models import SecurityEvent

log = logging.getLogger("ags.security")


async def record(
    tenant_id: str, kind: SecurityEvent.Kind, subject: str, account_id: str, correlation_id: str
) -> None:
    """Store the event, or count it once more. Committed when this returns; what is refused stays refused."""
    statement = f"""
INSERT INTO ags_sessions_securityevent
       (tenant_id, kind, subject, account_id, correlation_id, first_at, latest_at, times)
VALUES (%(tenant)s, %(kind)s, %(subject)s, %(account)s, %(correlation)s, {sql.now()}, {sql.now()}, 1)
    ON CONFLICT (tenant_id, kind, subject) DO UPDATE
   SET times = ags_sessions_securityevent.times + 1, latest_at = excluded.latest_at,
       correlation_id = excluded.correlation_id
"""  # noqa: S608 - put together from constants
    params = {
        "tenant": tenant_id,
        "kind": kind,
        "subject": subject,
        "account": account_id,
        "correlation": correlation_id,
    }
    await fetch_all(statement, params)
    log.warning(
        "security event", extra={"tenant": tenant_id, "kind": str(kind), "correlation_id": correlation_id}
    )
