"""Refreshing a sign-on: its refresh token is used up, and the next one takes its place."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ags.database import fetch_all
from ags.database.batching import Batcher
from ags.sessions.exceptions import InvalidReason, RejectReason, StaleSnapshot, TokenRejected
from ags.sessions.models import SecurityEvent
from ags.sessions.services import security_events
from ags.sessions.services.database_behind import database_behind
from ags.sessions.services.revoke import end_sign_on
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.jwt import RefreshToken, SignOn
from tenants.tenant_snapshot import TenantSnapshot

# Statements are put together from constants.
# ruff: noqa: S608

USED_KEPT = 16
"""Used refresh tokens that are remembered. A refresh that would forget one within its grace is refused."""


async def refresh(tenant: TenantSnapshot, token: RefreshToken, correlation_id: str) -> SignOn:
    """Return the sign-on with its next generation; when this returns, that is committed.

    A token that was used a moment ago gets the same successor: the answer was lost, or two of the client's
    own threads asked at once. One that was used before that is stolen, or its thief was faster: the sign-on
    ends. One that the database has not reached moves it forward: only AGS can have signed it, so the database
    has lost what it had committed. Raises `TokenRejected`, `StaleSnapshot`, and Django's database errors.
    """
    found = await _find(tenant, token, correlation_id)
    if found.is_unused(token):
        rotated = await _rotate(tenant, token, found)
        if rotated is not None:
            if token.generation > found.sign_on.generation:
                database_behind.report(tenant.id, correlation_id)
            return rotated
        found = await _find(
            tenant, token, correlation_id
        )  # another was faster, or something was just revoked
        if found.is_unused(token):
            raise StaleSnapshot(tenant)
    return found.sign_on


async def _find(tenant: TenantSnapshot, token: RefreshToken, correlation_id: str) -> _Found:
    """Return the sign-on of a token that is unused, or was used within the grace. Raises `TokenRejected`."""
    found = await _Found.of(tenant, token)
    if not (found.is_unused(token) or found.was_used_within(tenant.rules.refresh_grace, token)):
        await end_sign_on(tenant.id, token.sign_on, "refresh_token_reused")
        kind = SecurityEvent.Kind.REFRESH_TOKEN_REUSED
        await security_events.record(tenant.id, kind, token.sign_on, found.sign_on.account_id, correlation_id)
        raise TokenRejected(RejectReason.TOKEN_REUSED)
    # After reuse: a client that was offline while its token was stolen shows it when it has expired.
    if found.has_expired(token):
        raise TokenRejected(RejectReason.TOKEN_EXPIRED)
    return found


class _Found:
    """The sign-on as the database has it, once it is sure that it stands."""

    def __init__(self, row: Any) -> None:
        self.sign_on = SignOn(*row[:6])
        self.used: list[list[float]] = json.loads(row[6])
        self.now: float = row[7]

    @classmethod
    async def of(cls, tenant: TenantSnapshot, token: RefreshToken) -> _Found:
        """Read it. Raises `TokenRejected`."""
        row = await _states.submit({"tenant": tenant.id, "sign_on": token.sign_on})
        if row is None:
            raise TokenRejected(RejectReason.TOKEN_UNKNOWN)
        if row[8] is not None:
            raise TokenRejected(InvalidReason(row[8]))
        return cls(row)

    def has_expired(self, token: RefreshToken) -> bool:
        """Whether the token is too old. The row knows the end of its own generation, and of none after it."""
        if token.generation > self.sign_on.generation:
            return token.expires_at <= self.now
        return min(token.expires_at, self.sign_on.refresh_expires_at) <= self.now

    def is_unused(self, token: RefreshToken) -> bool:
        """Whether the database has seen no use of the token."""
        return token.generation >= self.sign_on.generation

    def was_used_within(self, grace: int, token: RefreshToken) -> bool:
        """Whether it was used, but only just: no later than the first generation kept that is not older."""
        if not self.used or token.generation < self.used[0][0]:
            return False
        used_at = next((at for number, at in self.used if number >= token.generation), -math.inf)
        return self.now < used_at + grace


async def _rotate(tenant: TenantSnapshot, token: RefreshToken, found: _Found) -> SignOn | None:
    grace = tenant.rules.refresh_grace
    current = found.sign_on.generation
    used = [one for one in found.used if found.now < one[1] + grace]
    # Two where the database is behind. When those in between were used, it has lost: they count as used now.
    used_now = sorted({current, token.generation})
    too_many = len(used) + len(used_now) - USED_KEPT
    if too_many > 0:
        raise TokenRejected(
            RejectReason.TOO_MANY_REFRESHES, math.ceil(used[too_many - 1][1] + grace - found.now)
        )
    used += [[generation, found.now] for generation in used_now]
    row = await _rotations.submit(
        {
            "tenant": tenant.id,
            "version": tenant.version,
            "rotated": token.sign_on,
            "current": current,
            "presented": token.generation,
            "refresh_ttl": tenant.rules.refresh_token_ttl,
            "now_used": used,
        }
    )
    if row is None:
        return None
    return SignOn(found.sign_on.account_id, found.sign_on.client_id, token.sign_on, *row)


async def _read(rows: Sequence[sql.Row]) -> list[Sequence[Any] | None]:
    return await sql.select_each(_state_sql(), rows)


async def _update(rows: Sequence[sql.Row]) -> list[Sequence[Any] | None]:
    """Rotate sign-ons; return the generation and the ends of each, None where it was not possible.

    Of two rows with the same sign-on, one is rotated.
    """
    return sql.in_order(rows, await fetch_all(_rotate_sql(), sql.values_params(rows)))


_states, _rotations = Batcher(_read), Batcher(_update)


@sql.cached_sql
def _state_sql() -> str:
    ends = sql.to_epoch("d.refresh_expires_at"), sql.to_epoch("d.fixed_expires_at")
    return f"""
SELECT g.row_number, a.account_id, d.client_id, d.sign_on, d.generation, {", ".join(ends)}, d.used,
       {sql.to_epoch(sql.now())}, {validity.SIGN_ON_INVALID_REASON}
  FROM {sql.values_table(tenant="text", sign_on="text")} AS g
  JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
 CROSS JOIN {validity.SIGN_ON_JOINS}
 WHERE t.id = d.tenant_id
"""


@sql.cached_sql
def _rotate_sql() -> str:
    values = sql.values_table(
        tenant="text",
        version="bigint",
        rotated="text",
        current="bigint",
        presented="bigint",
        refresh_ttl="integer",
        now_used="jsonb",
    )
    refreshed = sql.least(sql.now_plus_seconds("g.refresh_ttl"), "d.fixed_expires_at")
    ends = sql.to_epoch("refresh_expires_at"), sql.to_epoch("fixed_expires_at")
    # In order, so that two statements that meet in the same devices wait for each other one way round.
    return f"""
UPDATE ags_sessions_device AS d
   SET generation = g.presented + 1, refresh_expires_at = {refreshed}, used = g.now_used
  FROM (SELECT d.id AS number, g.*
          FROM {values} AS g
          JOIN ags_sessions_device d
            ON d.tenant_id = g.tenant AND d.sign_on = g.rotated AND d.generation = g.current
           AND (d.generation < g.presented OR d.refresh_expires_at > {sql.now()})
         CROSS JOIN {validity.SIGN_ON_JOINS}
         WHERE t.id = d.tenant_id AND t.version = g.version AND ({validity.SIGN_ON_INVALID_REASON}) IS NULL
         ORDER BY d.client_id {sql.lock_rows("d")}) AS g
 WHERE d.id = g.number AND d.generation = g.current
RETURNING {sql.row_number()}, generation, {", ".join(ends)}
"""
