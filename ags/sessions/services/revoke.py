"""Revoking access tokens and ending sign-ons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ags.database import transaction
from ags.database.batching import Batcher
from ags.sessions.models import Event
from ags.sessions.request_context import RequestContext
from ags.sessions.services.events import event_row, store
from ags.sessions.services.introspect import introspect
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.client_tokens import AccessToken

# Statements are built from constants.
# ruff: noqa: S608


async def end_sign_on(
    tenant_id: str,
    sign_on: str,
    reason: str,
    context: RequestContext,
    *,
    service: str = "",
    actor: str = "",
    unless_revoked: str | None = None,
) -> bool:
    """Return False if it had already ended, or the access token `unless_revoked` (its `jti`) is revoked.

    `service` and `actor` are recorded with the event.
    """
    event = event_row(
        Event.Kind.SIGN_ON_ENDED, tenant_id, sign_on, context, service=service, actor=actor, reason=reason
    )
    row = {"tenant": tenant_id, "sign_on": sign_on, "reason": reason, "unless_revoked": unless_revoked}
    ended: bool = await _endings.submit(_Revocation(row, event))
    return ended


async def sign_out(tenant_id: str, token: AccessToken, context: RequestContext, *, service: str) -> bool:
    """End the sign-on of an access token. Return whether the token was active.

    An inactive sign-on also ends: a disabled device must not be signed on again when it is enabled, after its
    user has signed out. A revoked access token cannot end its sign-on.
    """
    was_active = await introspect(tenant_id, token) is not None
    jti = None if was_active else token.jti
    await end_sign_on(tenant_id, token.sign_on, "signed_out", context, service=service, unless_revoked=jti)
    return was_active


async def revoke_access_token(
    tenant_id: str, token: AccessToken, context: RequestContext, *, actor: str
) -> None:
    event = event_row(Event.Kind.ACCESS_TOKEN_REVOKED, tenant_id, token.sign_on, context, actor=actor)
    row = {"tenant": tenant_id, "jti": token.jti, "expires": float(token.claims["exp"])}
    await _revocations.submit(_Revocation(row, event))


@dataclass(frozen=True, slots=True)
class _Revocation:
    row: sql.Row
    event: sql.Row
    """Stored if the row has changed something."""


async def _end_all(endings: Sequence[_Revocation]) -> list[bool]:
    rows = [each.row for each in endings]
    async with transaction() as opened:
        ended = sql.order_results(rows, await opened.fetch_all(_end_sql(), sql.values_params(rows)))
        results = [columns is not None for columns in ended]
        await store(opened, [each.event for each, is_new in zip(endings, results, strict=True) if is_new])
    return results


async def _revoke_all(revocations: Sequence[_Revocation]) -> list[None]:
    by_token = {(each.row["tenant"], each.row["jti"]): each for each in revocations}
    rows = [each.row for each in by_token.values()]
    async with transaction() as opened:
        stored: Sequence[Any] = await opened.fetch_all(_revoke_sql(), sql.values_params(rows))
        await store(opened, [by_token[tenant_id, jti].event for tenant_id, jti in stored])
    return [None] * len(revocations)


_endings = Batcher("sign_out", _end_all)
_revocations = Batcher("revocation", _revoke_all)


@sql.cached_sql
def _end_sql() -> str:
    values = sql.values_table(tenant="text", sign_on="text", reason="text", unless_revoked="text")
    # Locks rows in the order of the client ID, so that concurrent statements cannot deadlock. Of two rows
    # with the same sign-on, one ends it.
    return f"""
UPDATE ags_sessions_device AS d
   SET ended_at = {sql.now()}, end_reason = g.reason
  FROM (SELECT d.id AS device, g.reason, g.row_number
          FROM {values} AS g
          JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
         WHERE d.ended_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM ags_sessions_revokedaccesstoken r
                            WHERE r.tenant_id = g.tenant AND r.jti = g.unless_revoked)
         ORDER BY d.client_id {sql.lock_rows("d")}) AS g
 WHERE d.id = g.device AND d.ended_at IS NULL
RETURNING {sql.row_number()}
"""


@sql.cached_sql
def _revoke_sql() -> str:
    # Ordered, so that concurrent statements cannot deadlock.
    return f"""
INSERT INTO ags_sessions_revokedaccesstoken (tenant_id, jti, revoked_at, expires_at)
SELECT g.tenant, g.jti, {sql.now()}, {sql.from_epoch("g.expires")}
  FROM {sql.values_table(tenant="text", jti="text", expires="double precision")} AS g
 WHERE TRUE
 ORDER BY g.tenant, g.jti
    ON CONFLICT DO NOTHING
RETURNING tenant_id, jti
"""
