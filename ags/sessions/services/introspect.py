"""The state of tokens for resource servers (RFC 7662)."""

from ags.sessions.sql import functions as sql
from ags.sessions.sql import validity
from ags.sessions.tokens.client_tokens import AccessToken, RefreshToken

# Statements are built from constants.
# ruff: noqa: S608


async def introspect(tenant_id: str, token: AccessToken | RefreshToken) -> tuple[str, str] | None:
    """Return account ID and client ID as stored: a platform that shares an HS256 secret could sign others."""
    row: sql.Row = {"tenant": tenant_id, "sign_on": token.sign_on}
    subject: tuple[str, str] | None
    if isinstance(token, AccessToken):
        subject = await _access_tokens.submit({**row, "jti": token.jti})
    else:
        expires = {"generation": token.generation, "expires": token.expires_at}
        subject = await _refresh_tokens.submit({**row, **expires})
    return subject


@sql.cached_sql
def _access_tokens_sql() -> str:
    return _active_tokens_sql(f"({validity.ACCESS_TOKEN_INVALID_REASON}) IS NULL", jti="text")


@sql.cached_sql
def _refresh_tokens_sql() -> str:
    # A generation newer than the row is accepted, as in a refresh: the database may have been restored. The
    # row has the expiration of its own generation only.
    is_unused = f"""
   {sql.from_epoch("g.expires")} > {sql.now()}
   AND (d.generation < g.generation
        OR d.generation = g.generation AND d.refresh_expires_at > {sql.now()})"""
    return _active_tokens_sql(
        f"({validity.SIGN_ON_INVALID_REASON}) IS NULL AND {is_unused}",
        generation="bigint",
        expires="double precision",
    )


_access_tokens = sql.batch_selects("access_token_state", _access_tokens_sql)
_refresh_tokens = sql.batch_selects("refresh_token_state", _refresh_tokens_sql)


def _active_tokens_sql(condition: str, **columns: str) -> str:
    values = sql.values_table(tenant="text", sign_on="text", **columns)
    return f"""
SELECT g.row_number, a.account_id, d.client_id
  FROM {values} AS g
  JOIN ags_sessions_device d ON d.tenant_id = g.tenant AND d.sign_on = g.sign_on
 CROSS JOIN {validity.SIGN_ON_JOINS}
 WHERE t.id = d.tenant_id
   AND {condition}
"""
