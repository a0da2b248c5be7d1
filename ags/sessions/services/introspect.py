"""Whether a token is active, for a resource server that asks (RFC 7662)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ags.database.batching import Batcher
from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.jwt import AccessToken, RefreshToken

# Statements are put together from constants.
# ruff: noqa: S608


async def is_active(tenant_id: str, token: AccessToken | RefreshToken) -> tuple[str, str] | None:
    """Return the account and the device of a token, or None when it is not valid. Raises Django's errors.

    They are told from the row: a platform that shares an HS256 secret could have signed others. Tokens that
    are introspected at the same time share a statement.
    """
    row: sql.Row = {"tenant": tenant_id, "sign_on": token.sign_on}
    found: tuple[str, str] | None
    if isinstance(token, AccessToken):
        found = await _access_tokens.submit({**row, "jti": token.jti})
    else:
        expires = {"generation": token.generation, "expires": token.expires_at}
        found = await _refresh_tokens.submit({**row, **expires})
    return found


async def _look_at_access_tokens(rows: Sequence[sql.Row]) -> Sequence[Any]:
    return await sql.select_each(_access_tokens_sql(), rows)


async def _look_at_refresh_tokens(rows: Sequence[sql.Row]) -> Sequence[Any]:
    return await sql.select_each(_refresh_tokens_sql(), rows)


_access_tokens = Batcher(_look_at_access_tokens)
_refresh_tokens = Batcher(_look_at_refresh_tokens)


@sql.cached_sql
def _access_tokens_sql() -> str:
    return _selecting(f"({validity.ACCESS_TOKEN_INVALID_REASON}) IS NULL", jti="text")


@sql.cached_sql
def _refresh_tokens_sql() -> str:
    # One that the row has not reached is refreshed, too. The row has the end of its own generation only.
    unused = f"""
   {sql.from_epoch("g.expires")} > {sql.now()}
   AND (d.generation < g.generation
        OR d.generation = g.generation AND d.refresh_expires_at > {sql.now()})"""
    return _selecting(
        f"({validity.SIGN_ON_INVALID_REASON}) IS NULL AND {unused}",
        generation="bigint",
        expires="double precision",
    )


def _selecting(condition: str, **columns: str) -> str:
    values = sql.values_table(tenant="text", sign_on="text", **columns)
    return f"""
SELECT g.row_number, a.account_id, d.client_id
  FROM {values} AS g
  JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
 CROSS JOIN {validity.SIGN_ON_JOINS}
 WHERE t.id = d.tenant_id
   AND {condition}
"""
