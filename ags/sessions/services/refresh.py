"""Refreshing sign-ons, with rotation of the refresh token and detection of its reuse (RFC 9700, 4.14.2)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from ags.database import fetch_all
from ags.database.batching import Batcher
from ags.sessions.exceptions import InvalidReason, RejectReason, StaleSnapshot, TokenRejected
from ags.sessions.models import SecurityEvent
from ags.sessions.request_context import RequestContext
from ags.sessions.services import database_behind, security_events
from ags.sessions.services.revoke import end_sign_on
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.client_tokens import RefreshToken, SignOn
from tenants.tenant_snapshot import TenantSnapshot

# Statements are built from constants.
# ruff: noqa: S608

MAX_USED = 16
"""Used refresh tokens that are kept. A refresh that would drop one within its grace period is rejected."""


async def refresh(tenant: TenantSnapshot, token: RefreshToken, context: RequestContext) -> SignOn:
    """Return the sign-on with its next generation, which is committed when this returns.

    A token that was used within the grace period gets the same successor: the response was lost, or the
    client sent two requests. Later reuse means that the token was stolen, and ends the sign-on. A token that
    is newer than the database moves the row forward: only AGS can have signed it, so the database has lost
    commits. Raises `TokenRejected`, `StaleSnapshot` and Django's database errors.
    """
    state = await _fetch_usable_state(tenant, token, context)
    if state.is_unused(token):
        rotated = await _rotate(tenant, token, state)
        if rotated is not None:
            if token.generation > state.sign_on.generation:
                database_behind.reporter.report(tenant.id, context.correlation_id)
            return rotated
        # Another request has used the token, or something has just been revoked.
        state = await _fetch_usable_state(tenant, token, context)
        if state.is_unused(token):
            raise StaleSnapshot(tenant)
    return state.sign_on


async def _fetch_usable_state(
    tenant: TenantSnapshot, token: RefreshToken, context: RequestContext
) -> _SignOnState:
    state = await _SignOnState.fetch(tenant, token)
    context.account_id, context.client_id = state.sign_on.account_id, state.sign_on.client_id
    if not (state.is_unused(token) or state.was_used_within(tenant.rules.refresh_grace, token)):
        await end_sign_on(tenant.id, token.sign_on, "refresh_token_reused", context)
        kind = SecurityEvent.Kind.REFRESH_TOKEN_REUSED
        await security_events.record(
            tenant.id, kind, token.sign_on, state.sign_on.account_id, context.correlation_id
        )
        raise TokenRejected(RejectReason.TOKEN_REUSED)
    # Checked after reuse: a client that was offline when its token was stolen may present it expired.
    if state.has_expired(token):
        raise TokenRejected(RejectReason.TOKEN_EXPIRED)
    return state


class _SignOnState:
    def __init__(self, row: Any) -> None:
        self.sign_on = SignOn(*row[:6])
        self.used: list[list[float]] = json.loads(row[6])
        self.now: float = row[7]

    @classmethod
    async def fetch(cls, tenant: TenantSnapshot, token: RefreshToken) -> _SignOnState:
        row = await _states.submit({"tenant": tenant.id, "sign_on": token.sign_on})
        if row is None:
            raise TokenRejected(RejectReason.TOKEN_UNKNOWN)
        if row[8] is not None:
            raise TokenRejected(InvalidReason(row[8]))
        return cls(row)

    def has_expired(self, token: RefreshToken) -> bool:
        # The row has the expiration of its own generation, but not of newer ones.
        if token.generation > self.sign_on.generation:
            return token.expires_at <= self.now
        return min(token.expires_at, self.sign_on.refresh_expires_at) <= self.now

    def is_unused(self, token: RefreshToken) -> bool:
        return token.generation >= self.sign_on.generation

    def was_used_within(self, grace: int, token: RefreshToken) -> bool:
        """A generation that the history lacks counts as used with the next one in it."""
        if not self.used or token.generation < self.used[0][0]:
            return False
        used_at = next((at for number, at in self.used if number >= token.generation), -math.inf)
        return self.now < used_at + grace


async def _rotate(tenant: TenantSnapshot, token: RefreshToken, state: _SignOnState) -> SignOn | None:
    grace = tenant.rules.refresh_grace
    current = state.sign_on.generation
    used = [entry for entry in state.used if state.now < entry[1] + grace]
    # Two if the database is behind. It has lost when the generations in between were used: they count as
    # used now.
    used_now = sorted({current, token.generation})
    excess = len(used) + len(used_now) - MAX_USED
    if excess > 0:
        retry_after = math.ceil(used[excess - 1][1] + grace - state.now)
        raise TokenRejected(RejectReason.TOO_MANY_REFRESHES, retry_after)
    used += [[generation, state.now] for generation in used_now]
    row = await _rotations.submit(
        {
            "tenant": tenant.id,
            "version": tenant.version,
            "rotated": token.sign_on,
            "current": current,
            "presented": token.generation,
            "refresh_ttl": tenant.rules.refresh_token_ttl,
            "new_used": used,
        }
    )
    if row is None:
        return None
    return SignOn(state.sign_on.account_id, state.sign_on.client_id, token.sign_on, *row)


async def _rotate_all(rows: Sequence[sql.Row]) -> list[Sequence[Any] | None]:
    """Of two rows with the same sign-on, one is rotated."""
    return sql.order_results(rows, await fetch_all(_rotate_sql(), sql.values_params(rows)))


_rotations = Batcher("refresh", _rotate_all)


@sql.cached_sql
def _state_sql() -> str:
    expirations = sql.to_epoch("d.refresh_expires_at"), sql.to_epoch("d.fixed_expires_at")
    return f"""
SELECT g.row_number, a.account_id, d.client_id, d.sign_on, d.generation, {", ".join(expirations)}, d.used,
       {sql.to_epoch(sql.now())}, {validity.SIGN_ON_INVALID_REASON}
  FROM {sql.values_table(tenant="text", sign_on="text")} AS g
  JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
 CROSS JOIN {validity.SIGN_ON_JOINS}
 WHERE t.id = d.tenant_id
"""


_states = sql.batch_selects("sign_on_state", _state_sql)


@sql.cached_sql
def _rotate_sql() -> str:
    values = sql.values_table(
        tenant="text",
        version="bigint",
        rotated="text",
        current="bigint",
        presented="bigint",
        refresh_ttl="integer",
        new_used="jsonb",
    )
    refresh_expires_at = sql.least(sql.now_plus_seconds("g.refresh_ttl"), "d.fixed_expires_at")
    expirations = sql.to_epoch("refresh_expires_at"), sql.to_epoch("fixed_expires_at")
    # Locks rows in the order of the client ID, so that concurrent statements cannot deadlock.
    return f"""
UPDATE ags_sessions_device AS d
   SET generation = g.presented + 1, refresh_expires_at = {refresh_expires_at}, used = g.new_used
  FROM (SELECT d.id AS device, g.*
          FROM {values} AS g
          JOIN ags_sessions_device d
            ON d.tenant_id = g.tenant AND d.sign_on = g.rotated AND d.generation = g.current
           AND (d.generation < g.presented OR d.refresh_expires_at > {sql.now()})
         CROSS JOIN {validity.SIGN_ON_JOINS}
         WHERE t.id = d.tenant_id AND t.version = g.version AND ({validity.SIGN_ON_INVALID_REASON}) IS NULL
         ORDER BY d.client_id {sql.lock_rows("d")}) AS g
 WHERE d.id = g.device AND d.generation = g.current
RETURNING {sql.row_number()}, generation, {", ".join(expirations)}
"""
