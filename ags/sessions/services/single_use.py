"""Why what is good once, a session token or a choice of accounts, could not be used."""

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
    """A request to use one. `hashes` are those of its token, one under each key that may have made it."""

    tenant: TenantSnapshot
    service: ServiceSnapshot
    correlation_id: str
    hashes: Sequence[bytes]

    def row(self) -> dict[str, Any]:
        """Return the values of `redemption_rows`."""
        return {
            "tenant": self.tenant.id,
            "service": self.service.id,
            "version": self.tenant.version,
            **sql.numbered_params("hash", self.hashes),
        }


def redemption_rows(hashes: int, **more: str) -> str:
    """Return the rows of redemptions with so many hashes, as a table."""
    columns = sql.numbered_params("hash", ["bytea"] * hashes)
    return sql.values_table(tenant="text", service="bigint", version="bigint", **columns, **more)


class Rejections:
    """Explains why redemptions were rejected, several by one statement.

    `state_sql` takes the number of hashes, and selects for each redemption: ID, account ID, whether it is
    used, revoked, expired, its service, and why it is invalid, if it is. A second use is a security event of
    the kind `reuse`.
    """

    def __init__(self, state_sql: Callable[[int], str], reuse: SecurityEvent.Kind) -> None:
        self._state_sql = state_sql
        self._reuse = reuse
        self.states = Batcher(self._read)

    async def explain(self, one: Redemption) -> Exception:
        """Return the precise reason, by what the database says of it now."""
        row = await self.states.submit(one)
        if row is None:
            return TokenRejected(RejectReason.TOKEN_UNKNOWN)
        number, account_id, is_used, is_revoked, is_expired, service_id, invalid_reason = row
        if is_used:
            await security_events.record(
                one.tenant.id, self._reuse, str(number), account_id, one.correlation_id
            )
            return TokenRejected(RejectReason.TOKEN_SPENT)
        if is_revoked:
            return TokenRejected(InvalidReason.REVOKED)
        if is_expired:
            return TokenRejected(RejectReason.TOKEN_EXPIRED)
        if service_id != one.service.id:
            return TokenRejected(RejectReason.TOKEN_UNKNOWN)
        if invalid_reason is not None:
            return TokenRejected(InvalidReason(invalid_reason))
        return StaleSnapshot(one.tenant)

    async def _read(self, redemptions: Sequence[Redemption]) -> list[Sequence[Any] | None]:
        rows = [one.row() for one in redemptions]
        return await sql.select_each(self._state_sql(len(redemptions[0].hashes)), rows)
