"""Redemption of single-use tokens: session tokens and account choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ags.database.batching import Batcher
from ags.sessions.exceptions import InvalidReason, RejectReason, StaleSnapshot, TokenRejected
from ags.sessions.models import SecurityEvent
from ags.sessions.services import security_events
from ags.sessions.sql import functions as sql
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


@dataclass(frozen=True, slots=True)
class Redemption:
    """A request to redeem a token. `hashes`: the hashes of the token under each encryption key."""

    tenant: TenantSnapshot
    service: ServiceSnapshot
    correlation_id: str
    hashes: Sequence[bytes]

    def row(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant.id,
            "service": self.service.id,
            "version": self.tenant.version,
            **sql.numbered_params("hash", self.hashes),
        }


def redemptions_table(hash_count: int, **columns: str) -> str:
    """Return the table of `Redemption.row()` values with that number of hashes, and more columns."""
    hashes = sql.numbered_params("hash", ["bytea"] * hash_count)
    return sql.values_table(tenant="text", service="bigint", version="bigint", **hashes, **columns)


class RejectionExplainer:
    """Explains rejected redemptions.

    `state_sql` returns a SELECT for a number of hashes. Its columns, after `row_number`, are: primary key,
    account ID, is used, is revoked, is expired, service, and reason for invalidity or NULL. Using a token
    twice is recorded as a security event of the kind `reuse_kind`.
    """

    def __init__(self, state_sql: Callable[[int], str], reuse_kind: SecurityEvent.Kind) -> None:
        self._state_sql = state_sql
        self._reuse_kind = reuse_kind
        self.states = Batcher(self._fetch_states)

    async def explain(self, redemption: Redemption) -> Exception:
        row = await self.states.submit(redemption)
        if row is None:
            return TokenRejected(RejectReason.TOKEN_UNKNOWN)
        pk, account_id, is_used, is_revoked, is_expired, service_id, invalid_reason = row
        if is_used:
            await security_events.record(
                redemption.tenant.id, self._reuse_kind, str(pk), account_id, redemption.correlation_id
            )
            return TokenRejected(RejectReason.TOKEN_SPENT)
        if is_revoked:
            return TokenRejected(InvalidReason.REVOKED)
        if is_expired:
            return TokenRejected(RejectReason.TOKEN_EXPIRED)
        if service_id != redemption.service.id:
            return TokenRejected(RejectReason.TOKEN_UNKNOWN)
        if invalid_reason is not None:
            return TokenRejected(InvalidReason(invalid_reason))
        return StaleSnapshot(redemption.tenant)

    async def _fetch_states(self, redemptions: Sequence[Redemption]) -> list[Sequence[Any] | None]:
        rows = [redemption.row() for redemption in redemptions]
        return await sql.select_each(self._state_sql(len(redemptions[0].hashes)), rows)
