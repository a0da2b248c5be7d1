"""Revoking access tokens and ending sign-ons."""

from collections.abc import Mapping
from typing import Any

from ags.database import INSERTS, fetch_all
from ags.sessions.services.introspect import introspect
from ags.sessions.sql import functions as sql
from ags.sessions.tokens.client_tokens import AccessToken

# Statements are built from constants.
# ruff: noqa: S608


async def end_sign_on(tenant_id: str, sign_on: str, reason: str) -> bool:
    """Return False if it had already ended."""
    return await _end_sign_on({"tenant": tenant_id, "sign_on": sign_on, "reason": reason})


async def sign_out(tenant_id: str, token: AccessToken) -> bool:
    """End the sign-on of an access token. Return whether the token was active.

    An inactive sign-on also ends: a disabled device must not be signed on again when it is enabled, after its
    user has signed out. A revoked access token cannot end its sign-on.
    """
    was_active = await introspect(tenant_id, token) is not None
    params = {"tenant": tenant_id, "sign_on": token.sign_on, "reason": "signed_out", "jti": token.jti}
    await _end_sign_on(params, "" if was_active else _NOT_REVOKED_CONDITION)
    return was_active


async def revoke_access_token(tenant_id: str, token: AccessToken) -> None:
    statement = f"""
INSERT INTO ags_sessions_revokedaccesstoken (tenant_id, jti, revoked_at, expires_at)
VALUES (%(tenant)s, %(jti)s, {sql.now()}, {sql.from_epoch("%(expires)s")})
    ON CONFLICT DO NOTHING
"""
    params = {"tenant": tenant_id, "jti": token.jti, "expires": float(token.claims["exp"])}
    await fetch_all(statement, params, INSERTS)


_NOT_REVOKED_CONDITION = """
   AND NOT EXISTS (SELECT 1 FROM ags_sessions_revokedaccesstoken r
                    WHERE r.tenant_id = %(tenant)s AND r.jti = %(jti)s)"""


async def _end_sign_on(params: Mapping[str, Any], condition: str = "") -> bool:
    statement = f"""
UPDATE ags_sessions_device
   SET ended_at = {sql.now()}, end_reason = %(reason)s
 WHERE tenant_id = %(tenant)s AND sign_on = %(sign_on)s AND ended_at IS NULL{condition}
RETURNING id
"""
    return bool(await fetch_all(statement, params))
