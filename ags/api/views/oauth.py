"""The standard doors for resource servers: introspection (RFC 7662) and revocation (RFC 7009)."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import unquote

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema, inline_serializer
from rest_framework import serializers

from ags.api.access_log import get_log_entry
from ags.api.errors import (
    CLIENT_AUTHENTICATION_REPEATED,
    CLIENT_NOT_AUTHENTICATED,
    FORM_MALFORMED,
    ApiError,
)
from ags.api.openapi import CORRELATION_ID, refusals
from ags.api.request.body import read_form
from ags.api.request.resolve import get_tenant
from ags.api.views.base import GatewayView, Response
from ags.sessions.exceptions import TokenRejected
from ags.sessions.services.introspect import introspect
from ags.sessions.services.revoke import end_sign_on, revoke_access_token
from ags.sessions.tokens.jwt import AccessToken, RefreshToken, read_access_token, read_refresh_token
from tenants.models.resource_server import SEPARATOR, hash_client_secret
from tenants.tenant_snapshot import TenantSnapshot


class TokenRequestSerializer(serializers.Serializer[Any]):
    """What a resource server posts, as a form."""

    token = serializers.CharField(min_length=1, help_text="An access token or a refresh token.")
    token_type_hint = serializers.CharField(
        required=False,
        help_text="To introspect a refresh token: refresh_token. Not needed to revoke one.",
    )
    client_id = serializers.CharField(
        required=False, help_text="Where HTTP Basic is not used; beside it, the same client ID."
    )
    client_secret = serializers.CharField(required=False, help_text="Where HTTP Basic is not used.")


ACTIVE = inline_serializer(
    "Introspection",
    {
        "active": serializers.BooleanField(help_text="All else is told of an active token only."),
        "token_type": serializers.CharField(required=False),
        "client_id": serializers.CharField(required=False, help_text="The device."),
        "sub": serializers.CharField(required=False, help_text="The account."),
    },
)

TOLD = ("typ", "ver", "sid", "jti", "iat", "exp", "fixed_exp", "iss", "aud")
"""Claims that are told as they are signed; whose token it is, is told from the database."""

Reader = Callable[[TenantSnapshot, str], AccessToken | RefreshToken]

READERS: tuple[Reader, ...] = (read_access_token, read_refresh_token)

FORM = {"application/x-www-form-urlencoded": TokenRequestSerializer}


class Introspect(GatewayView):
    """Whether a token is active, and what it says."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="introspect",
        summary="Ask whether a token is active (RFC 7662)",
        parameters=[CORRELATION_ID],
        request=FORM,
        responses={200: ACTIVE, **refusals(400, 401, 413, 415, 503)},
        auth=[{"resourceServer": []}, {}],  # or in the form
    )
    async def post(self, request: HttpRequest) -> Response:
        """Answer for tokens of the resource server's own tenant; any other is not active.

        A refresh token is active only with the hint refresh_token: services accept any active token as an
        access token.
        """
        tenant, form = await _authenticated(request)
        asks_for_any = form.get("token_type_hint") == "refresh_token"
        token = _read(tenant, form["token"], READERS if asks_for_any else READERS[:1])
        whose = None if token is None else await introspect(tenant.id, token)
        if token is None or whose is None:
            return Response({"active": False})
        account_id, client_id = whose
        return Response(
            {
                **{name: token.claims[name] for name in TOLD if name in token.claims},
                "tenantId": tenant.id,
                "accountId": account_id,
                "userId": account_id,
                "deviceId": client_id,
                "active": True,
                "token_type": "bearer" if isinstance(token, AccessToken) else "refresh_token",
                "client_id": client_id,
                "sub": account_id,
            }
        )


class Revoke(GatewayView):
    """Makes a token worthless."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="revoke",
        summary="Revoke a token (RFC 7009)",
        parameters=[CORRELATION_ID],
        request=FORM,
        responses={200: inline_serializer("Revoked", {}), **refusals(400, 401, 413, 415, 503)},
        auth=[{"resourceServer": []}, {}],  # or in the form
    )
    async def post(self, request: HttpRequest) -> Response:
        """Revoke an access token by itself, or with a refresh token the sign-on that it keeps alive.

        200 also where there is nothing to revoke, as the standard wants it.
        """
        tenant, form = await _authenticated(request)
        match _read(tenant, form["token"], READERS):
            case AccessToken() as token:
                await revoke_access_token(tenant.id, token)
            case RefreshToken() as token:
                await end_sign_on(tenant.id, token.sign_on, "revoked")
        return Response({})


def _read(tenant: TenantSnapshot, token: str, readers: Iterable[Reader]) -> AccessToken | RefreshToken | None:
    for read in readers:
        try:
            return read(tenant, token)
        except TokenRejected:
            continue
    return None


async def _authenticated(request: HttpRequest) -> tuple[TenantSnapshot, Mapping[str, str]]:
    """Return the tenant of the resource server that asks, and the form. Raises ApiError."""
    form = read_form(request)
    if not form.get("token"):
        raise ApiError(FORM_MALFORMED)
    client_id, secret = _credentials(request.META, form)
    tenant = await get_tenant(client_id.partition(SEPARATOR)[0])
    known = tenant.resource_servers.get(client_id) if tenant is not None else None
    # Compared in any case, so that time does not tell who is known.
    same = hmac.compare_digest(known or bytes(32), hash_client_secret(secret))
    if tenant is None or known is None or not same:
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    get_log_entry(request).tenant = tenant.id
    return tenant, form


def _credentials(meta: Mapping[str, Any], form: Mapping[str, str]) -> tuple[str, str]:
    """Return client ID and secret, from HTTP Basic or from the form. Raises ApiError.

    RFC 6749, section 2.3: a client uses one method in a request. Naming itself in the form is none.
    """
    header: str = meta.get("HTTP_AUTHORIZATION", "")
    named, secret = form.get("client_id", ""), form.get("client_secret", "")
    if not header:
        return named, secret
    if secret:
        raise ApiError(CLIENT_AUTHENTICATION_REPEATED)
    client_id, secret = _basic(header)
    if named and named != client_id:
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    return client_id, secret


def _basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:  # no base64, not even ASCII, or no UTF-8 in it
        raise ApiError(CLIENT_NOT_AUTHENTICATED) from None
    client_id, _, secret = text.partition(":")
    # RFC 6749, section 2.3.1: both are form-encoded before they are put together.
    return unquote(client_id), unquote(secret)
