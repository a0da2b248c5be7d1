"""Whether a token is active, for a resource server that asks (RFC 7662)."""

from __future__ import annotations

from typing import Any

from ags.sessions import dialect, standing
from ags.sessions.client_tokens import AccessToken, RefreshToken

# Statements are put together from constants.
# ruff: noqa: S608


def is_active(tenant_id: str, token: AccessToken | RefreshToken) -> tuple[str, str] | None:
    """Ask the database, in one statement, whether the token stands; return whose account and device it is.

    Those are told from the row: a platform that shares an HS256 secret could have signed others.
    """
    known_by: dict[str, Any]
    if isinstance(token, AccessToken):
        statement = _of_access_token()
        known_by = {"jti": token.jti}
    else:
        statement = _of_refresh_token()
        known_by = {"generation": token.generation, "expires": token.expires_at}
    row: tuple[str, str] | None = dialect.one(statement, tenant=tenant_id, sign_on=token.sign_on, **known_by)
    return row


@dialect.written_once
def _of_access_token() -> str:
    return _asking(f"({standing.ACCESS_TOKEN}) IS NULL")


@dialect.written_once
def _of_refresh_token() -> str:
    # One that the row has not reached is refreshed, too. The row has the end of its own generation only.
    unused = f"""
   {dialect.moment("expires")} > {dialect.now()}
   AND (d.generation < %(generation)s
        OR d.generation = %(generation)s AND d.refresh_expires_at > {dialect.now()})"""
    return _asking(f"({standing.SIGN_ON}) IS NULL AND {unused}")


def _asking(stands: str) -> str:
    return f"""
SELECT a.account_id, d.client_id FROM ags_sessions_device d CROSS JOIN {standing.OF_SIGN_ON}
 WHERE t.id = d.tenant_id AND d.tenant_id = %(tenant)s AND d.sign_on = %(sign_on)s
   AND {stands}
"""
