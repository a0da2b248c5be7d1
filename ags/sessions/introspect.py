"""Whether a token is active, for a resource server that asks (RFC 7662)."""

from __future__ import annotations

from ags.sessions import dialect, standing
from ags.sessions.client_tokens import AccessToken, RefreshToken

# Statements are put together from constants.
# ruff: noqa: S608


def is_active(tenant_id: str, token: AccessToken | RefreshToken) -> tuple[str, str] | None:
    """Ask the database, in one statement, whether the token stands; return whose account and device it is.

    Those are told from the row: a platform that shares an HS256 secret could have signed others.
    """
    stands: str
    known_by: str | int
    if isinstance(token, AccessToken):
        stands, known_by = f"({standing.ACCESS_TOKEN}) IS NULL", token.jti
    else:
        unused = f"d.generation = %(jti)s AND d.refresh_expires_at > {dialect.now()}"
        stands, known_by = f"({standing.SIGN_ON}) IS NULL AND {unused}", token.generation
    statement = f"""
SELECT a.account_id, d.client_id FROM ags_sessions_device d CROSS JOIN {standing.OF_SIGN_ON}
 WHERE t.id = d.tenant_id AND d.tenant_id = %(tenant)s AND d.sign_on = %(sign_on)s
   AND {stands}
"""
    row: tuple[str, str] | None = dialect.one(
        statement, tenant=tenant_id, sign_on=token.sign_on, jti=known_by
    )
    return row
