"""Ending what was granted: a token, a sign-on, or everything up to a moment."""

from __future__ import annotations

from django.db import connection
from django.db.models.functions import Now

from ags.database.threads import run_in_thread
from ags.sessions import dialect
from ags.sessions.client_tokens import AccessToken
from ags.sessions.introspect import is_active
from ags.sessions.models import Device, RevokedAccessToken
from tenants.revocation import cut_off

__all__ = ["cut_off", "end_sign_on", "revoke_access_token", "sign_out"]

# Statements are put together from constants.
# ruff: noqa: S608


def end_sign_on(tenant_id: str, sign_on: str, reason: str) -> bool:
    """End the sign-on: none of its tokens is good any more. Return whether it had not ended before."""
    living = Device.objects.for_tenant(tenant_id).filter(sign_on=sign_on, ended_at=None)
    return bool(living.update(ended_at=Now(), end_reason=reason))


async def sign_out(tenant_id: str, token: AccessToken) -> bool:
    """End the sign-on of an access token; return whether the token was active.

    The sign-on ends even where it is not active, for a disabled device that is enabled again should not be
    signed on against the will of its user. A token that was revoked by itself can do nothing any more.
    """
    was_active = await is_active(tenant_id, token) is not None
    await run_in_thread(_sign_out, tenant_id, token, was_active)
    return was_active


def _sign_out(tenant_id: str, token: AccessToken, was_active: bool) -> None:
    revoked = RevokedAccessToken.objects.for_tenant(tenant_id).filter(jti=token.jti)
    if was_active or not revoked.exists():
        end_sign_on(tenant_id, token.sign_on, "signed_out")


def revoke_access_token(tenant_id: str, token: AccessToken) -> None:
    """Make one access token worthless wherever AGS is asked; its sign-on goes on."""
    statement = f"""
INSERT INTO ags_sessions_revokedaccesstoken (tenant_id, jti, revoked_at, expires_at)
VALUES (%(tenant)s, %(jti)s, {dialect.now()}, {dialect.moment("expires")})
    ON CONFLICT DO NOTHING
"""
    with connection.cursor() as cursor:
        cursor.execute(
            statement, {"tenant": tenant_id, "jti": token.jti, "expires": float(token.claims["exp"])}
        )
