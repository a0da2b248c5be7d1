"""Token introspection (RFC 7662) and revocation (RFC 7009), for resource servers."""

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
from ags.api.openapi_components import CORRELATION_ID, error_responses
from ags.api.request.body import read_form
from ags.api.request.resolve import get_tenant
from ags.api.views.base import GatewayView, Response
from ags.sessions.exceptions import TokenRejected
from ags.sessions.services.introspect import introspect
from ags.sessions.services.revoke import end_sign_on, revoke_access_token
from ags.sessions.tokens.client_tokens import AccessToken, RefreshToken, read_access_token, read_refresh_token
from tenants.models.resource_server import SEPARATOR, hash_client_secret
from tenants.tenant_snapshot import TenantSnapshot


class TokenRequestSerializer(serializers.Serializer[Any]):
    """The form of a resource server."""

    token = serializers.CharField(min_length=1, help_text="An access token or a refresh token.")
    token_type_hint = serializers.CharField(
        required=False, help_text="refresh_token to introspect a refresh token. Not needed for revocation."
    )
    client_id = serializers.CharField(
        required=False, help_text="Required without HTTP Basic; with it, must be the same client ID."
    )
    client_secret = serializers.CharField(
        required=False, help_text="Required without HTTP Basic; not allowed with it."
    )


ACTIVE = inline_serializer(
    "Introspection",
    {
        "active": serializers.BooleanField(help_text="The other members are present only if true."),
        "token_type": serializers.CharField(required=False),
        "client_id": serializers.CharField(required=False, help_text="The device."),
        "sub": serializers.CharField(required=False, help_text="The account."),
    },
)

INTROSPECTION_CLAIMS = ("typ", "ver", "sid", "jti", "iat", "exp", "fixed_exp", "iss", "aud")
"""Claims copied from the token. Account and device come from the database."""

Reader = Callable[[TenantSnapshot, str], AccessToken | RefreshToken]

TOKEN_READERS: tuple[Reader, ...] = (read_access_token, read_refresh_token)

FORM = {"application/x-www-form-urlencoded": TokenRequestSerializer}


class Introspect(GatewayView):
    http_method_names = ["post"]
    tenant_headers = ()

    @extend_schema(
        operation_id="introspect",
        summary="Introspect a token (RFC 7662)",
        parameters=[CORRELATION_ID],
        request=FORM,
        responses={200: ACTIVE, **error_responses(400, 401, 413, 415, 429, 503)},
        auth=[{"resourceServer": []}, {}],  # or in the form
    )
    async def post(self, request: HttpRequest) -> Response:
        """Return the state of a token. Tokens of other tenants are not active.

        A refresh token is active only with the hint refresh_token, because services accept any active token
        as an access token.
        """
        tenant, _, form = await _authenticate(request)
        accepts_refresh_token = form.get("token_type_hint") == "refresh_token"
        token = _read_token(
            tenant, form["token"], TOKEN_READERS if accepts_refresh_token else TOKEN_READERS[:1]
        )
        owner = None if token is None else await introspect(tenant.id, token)
        if token is None or owner is None:
            return Response({"active": False})
        account_id, client_id = owner
        return Response(
            {
                **{name: token.claims[name] for name in INTROSPECTION_CLAIMS if name in token.claims},
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
    http_method_names = ["post"]
    tenant_headers = ()

    @extend_schema(
        operation_id="revoke",
        summary="Revoke a token (RFC 7009)",
        parameters=[CORRELATION_ID],
        request=FORM,
        responses={200: inline_serializer("Revoked", {}), **error_responses(400, 401, 413, 415, 429, 503)},
        auth=[{"resourceServer": []}, {}],  # or in the form
    )
    async def post(self, request: HttpRequest) -> Response:
        """Revoke an access token, or the whole sign-on of a refresh token.

        The response is 200 even if there is nothing to revoke (RFC 7009, section 2.2).
        """
        tenant, client_id, form = await _authenticate(request)
        match _read_token(tenant, form["token"], TOKEN_READERS):
            case AccessToken() as token:
                await revoke_access_token(tenant.id, token, self.log_entry, actor=client_id)
            case RefreshToken() as token:
                await end_sign_on(tenant.id, token.sign_on, "revoked", self.log_entry, actor=client_id)
        return Response({})


def _read_token(
    tenant: TenantSnapshot, token: str, readers: Iterable[Reader]
) -> AccessToken | RefreshToken | None:
    for read in readers:
        try:
            return read(tenant, token)
        except TokenRejected:
            continue
    return None


async def _authenticate(request: HttpRequest) -> tuple[TenantSnapshot, str, Mapping[str, str]]:
    """Return the tenant, the client ID of the resource server, and the form."""
    form = read_form(request)
    if not form.get("token"):
        raise ApiError(FORM_MALFORMED)
    client_id, secret = _credentials(request.META, form)
    tenant = await get_tenant(client_id.partition(SEPARATOR)[0])
    if tenant is not None:
        get_log_entry(request).tenant = tenant.id  # so that its staff can explain a refusal
    secret_hash = tenant.resource_servers.get(client_id) if tenant is not None else None
    # Always compared, so that the response time does not reveal whether the client ID exists.
    is_equal = hmac.compare_digest(secret_hash or bytes(32), hash_client_secret(secret))
    if tenant is None or secret_hash is None or not is_equal:
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    return tenant, client_id, form


def _credentials(meta: Mapping[str, Any], form: Mapping[str, str]) -> tuple[str, str]:
    """A client must use only one method (RFC 6749, section 2.3). A client_id in the form is not a method."""
    header: str = meta.get("HTTP_AUTHORIZATION", "")
    form_client_id, secret = form.get("client_id", ""), form.get("client_secret", "")
    if not header:
        return form_client_id, secret
    if secret:
        raise ApiError(CLIENT_AUTHENTICATION_REPEATED)
    client_id, secret = _parse_basic(header)
    if form_client_id and form_client_id != client_id:
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    return client_id, secret


def _parse_basic(header: str) -> tuple[str, str]:
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        raise ApiError(CLIENT_NOT_AUTHENTICATED)
    try:
        text = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:  # not Base64, or not UTF-8
        raise ApiError(CLIENT_NOT_AUTHENTICATED) from None
    client_id, _, secret = text.partition(":")
    # Both are form-encoded before they are joined (RFC 6749, section 2.3.1).
    return unquote(client_id), unquote(secret)
