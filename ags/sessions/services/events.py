"""Storing the events of sign-ons in the audit trail."""

from collections.abc import Sequence

from ags.database import Transaction
from ags.sessions.models import Event
from ags.sessions.request_context import RequestContext
from ags.sessions.sql import functions as sql


def event_row(
    kind: Event.Kind,
    tenant_id: str,
    sign_on: str,
    context: RequestContext,
    *,
    service: str = "",
    actor: str = "",
    reason: str = "",
) -> sql.Row:
    """Return an event of a sign-on, by its ID, for `store`. The other values are columns of `Event`."""
    return {
        "tenant": tenant_id,
        "sign_on": sign_on,
        "kind": kind,
        "service": service,
        "kid": context.kid or "",
        "correlation_id": context.correlation_id,
        "client_address": context.client_address,
        "actor": actor,
        "reason": reason,
    }


async def store(transaction: Transaction, events: Sequence[sql.Row]) -> None:
    """Store events in the transaction that causes them."""
    if events:
        await transaction.fetch_all(_insert_sql(), sql.values_params(events))


@sql.cached_sql
def _insert_sql() -> str:
    columns = ("kind", "service", "kid", "correlation_id", "client_address", "actor", "reason")
    types = dict.fromkeys(columns, "text") | {"client_address": "inet"}
    return f"""
INSERT INTO ags_sessions_event
       (tenant_id, created_at, account_id, client_id, details, {", ".join(columns)})
SELECT g.tenant, {sql.now()}, coalesce(a.account_id, ''), coalesce(d.client_id, ''), {sql.json("'{}'")},
       {", ".join(f"g.{name}" for name in columns)}
  FROM {sql.values_table(tenant="text", sign_on="text", **types)} AS g
  LEFT JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
  LEFT JOIN ags_sessions_account a ON a.tenant_id = d.tenant_id AND a.id = d.account_id
"""  # noqa: S608 - built from constants
