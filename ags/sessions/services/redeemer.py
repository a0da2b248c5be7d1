"""Redemption of single-use tokens: session tokens and account choices."""

import abc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions.exceptions import InvalidReason, RejectReason, StaleSnapshot, TokenRejected
from ags.sessions.models import Event, SecurityEvent
from ags.sessions.request_context import RequestContext
from ags.sessions.services import security_events
from ags.sessions.services.devices import Outcome, SignOnRequest, sign_on_devices
from ags.sessions.services.events import event_row, store
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.client_tokens import SignOn
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot


@dataclass(frozen=True, slots=True)
class Redemption(abc.ABC):
    """A request to redeem a token. `hashes`: the hashes of the token under each encryption key."""

    tenant: TenantSnapshot
    service: ServiceSnapshot
    context: RequestContext
    hashes: Sequence[bytes]

    def row(self) -> dict[str, Any]:
        return {
            "tenant": self.tenant.id,
            "service": self.service.id,
            "version": self.tenant.version,
            **sql.numbered_params("hash", self.hashes),
        }

    @abc.abstractmethod
    def sign_on_request(self, columns: Sequence[Any]) -> SignOnRequest:
        """`columns`: what the UPDATE that redeems the token returns, after `row_number`."""


def redemptions_table(hash_count: int, **columns: str) -> str:
    """Return the table of `Redemption.row()` values with that number of hashes, and more columns."""
    hashes = sql.numbered_params("hash", ["bytea"] * hash_count)
    return sql.values_table(tenant="text", service="bigint", version="bigint", **hashes, **columns)


class Redeemer:
    """Redeems the tokens of one kind, in the transaction of the sign-on, and explains rejections.

    `redeem_sql` returns an UPDATE for a number of hashes; `restore_sql` reverts it, as in `sign_on_devices`.
    `state_sql` returns a SELECT for a number of hashes. Its columns, after `row_number`, are: primary key,
    account ID, is used, is revoked, is expired, service, and reason for invalidity or NULL. Using a token
    twice is recorded as a security event of the kind `reuse_kind`. `is_event_stored`: whether a sign-on needs
    an `Event`, because no row is kept that records it.
    """

    def __init__(
        self,
        redeem_sql: Callable[[int], str],
        restore_sql: str,
        state_sql: Callable[[int], str],
        reuse_kind: SecurityEvent.Kind,
        *,
        is_event_stored: bool = False,
    ) -> None:
        self._redeem_sql, self._restore_sql, self._state_sql = redeem_sql, restore_sql, state_sql
        self._reuse_kind, self._is_event_stored = reuse_kind, is_event_stored
        self.redemptions = Batcher("redemption", self.redeem_all)
        self.states = Batcher("redemption_state", self._fetch_states)

    async def redeem(self, redemption: Redemption) -> SignOn:
        outcome: Outcome | None = await self.redemptions.submit(redemption)
        if outcome is None:
            raise await self._explain(redemption)
        if isinstance(outcome, TokenRejected):
            raise outcome
        return outcome

    async def redeem_all(self, redemptions: Sequence[Redemption]) -> list[Outcome | None]:
        rows = [redemption.row() for redemption in redemptions]
        statement = self._redeem_sql(len(redemptions[0].hashes))
        async with transaction() as opened:
            redeemed = sql.order_results(rows, await opened.fetch_all(statement, sql.values_params(rows)))
            requests = [
                None if columns is None else redemption.sign_on_request(columns)
                for redemption, columns in zip(redemptions, redeemed, strict=True)
            ]
            outcomes = await sign_on_devices(opened, requests, restore=self._restore_sql)
            if self._is_event_stored:
                await store(opened, _signed_on_events(redemptions, outcomes))
            return outcomes

    async def _explain(self, redemption: Redemption) -> Exception:
        row = await self.states.submit(redemption)
        if row is None:
            return TokenRejected(RejectReason.TOKEN_UNKNOWN)
        pk, account_id, is_used, is_revoked, is_expired, service_id, invalid_reason = row
        redemption.context.account_id = account_id
        if is_used:
            await security_events.record(
                redemption.tenant.id, self._reuse_kind, str(pk), account_id, redemption.context.correlation_id
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


def _signed_on_events(redemptions: Sequence[Redemption], outcomes: Sequence[Outcome | None]) -> list[sql.Row]:
    kind = Event.Kind.SIGNED_ON
    return [
        event_row(kind, each.tenant.id, outcome.id, each.context, service=each.service.name)
        for each, outcome in zip(redemptions, outcomes, strict=True)
        if isinstance(outcome, SignOn)
    ]
