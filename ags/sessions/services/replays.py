"""Rejection of replayed proofs (their `jti` was used before) and of others that `issue` could not insert.

That INSERT stores no second row with a `jti`: unique constraints of SessionToken prevent it.
"""

import time
from collections.abc import Sequence
from operator import itemgetter
from typing import Any

from ags.database import INSERTS
from ags.database.batching import Batcher
from ags.sessions.exceptions import StaleSnapshot
from ags.sessions.sql import functions as sql
from providers.contract import FailureReason, VerificationFailed
from tenants.tenant_snapshot import TenantSnapshot

MAX_KNOWN_REPLAYS = 1024
"""Replayed proofs that a process rejects without the database, the latest ones; 1 MiB at most."""

known_replays: dict[tuple[Any, ...], None] = {}
"""Proofs that the database has rejected as replayed. It rejects them for as long as they verify."""

_replay_key = itemgetter("tenant", "service", "key", "jti")


def reject_known_replay(row: sql.Row) -> None:
    """Raise `VerificationFailed(REPLAYED)` for a proof that the database has rejected as replayed.

    This makes a replay cheaper than a valid proof. The database decides on all other proofs.
    """
    if _replay_key(row) in known_replays:
        raise VerificationFailed(FailureReason.REPLAYED, "jti")


def _remember_replay(row: sql.Row) -> None:
    known_replays[_replay_key(row)] = None
    if len(known_replays) > MAX_KNOWN_REPLAYS:
        known_replays.pop(next(iter(known_replays)), None)  # another thread of runserver may have removed it


PROOF_COLUMNS = {"tenant": "text", "version": "bigint", "service": "bigint", "key": "bigint", "jti": "text"}


async def explain_rejection(tenant: TenantSnapshot, row: sql.Row) -> Exception:
    """Return the exception for a proof that the database has rejected.

    `row` has at least the columns of `acceptance_join`. The exception is `VerificationFailed(REPLAYED)` if
    the proof was accepted before, `VerificationFailed(KEY_NOT_IN_FORCE)` if the database's clock is outside
    the validity period of the key, and `StaleSnapshot` if the tenant, service or key has changed. Raises
    Django's database errors.
    """
    values = {name: row.get(name) for name in PROOF_COLUMNS}
    since, is_current, is_replayed, is_key_outside_validity = await _rejections.submit(values)
    if is_current and is_replayed:
        _remember_replay(row)
        return VerificationFailed(FailureReason.REPLAYED, "jti")
    if is_current and is_key_outside_validity:
        return VerificationFailed(FailureReason.KEY_NOT_IN_FORCE)
    return StaleSnapshot(tenant, since)


async def _explain(rows: Sequence[sql.Row]) -> list[tuple[float, bool, bool, bool]]:
    """Return the time of the statement and its three flags for each row."""
    since = time.monotonic()
    reasons = await sql.select_each(_rejection_sql(), rows, INSERTS)
    return [(since, *map(bool, row or ())) for row in reasons]  # type: ignore[misc] # a row has three flags


_rejections = Batcher("rejection", _explain)  # a change of a tenant rejects many proofs at the same time


@sql.cached_sql
def _rejection_sql() -> str:
    now = sql.now()
    return f"""
SELECT g.row_number, t.id IS NOT NULL,
       g.jti IS NOT NULL AND EXISTS (SELECT 1 FROM ags_sessions_sessiontoken st
                WHERE st.tenant_id = g.tenant AND st.jti = g.jti
                  AND (st.key_id = g.key
                       OR (g.key IS NULL AND st.key_id IS NULL AND st.service_id = g.service))),
       k.not_before > {now} OR k.not_after <= {now}
  FROM {sql.values_table(**PROOF_COLUMNS)} AS g
  LEFT JOIN tenants_tenant t ON t.id = g.tenant AND t.enabled AND t.version = g.version
  LEFT JOIN tenants_key k ON k.id = g.key AND k.tenant_id = g.tenant
"""  # noqa: S608 - built from constants
