"""`POST /ias/v3/token/actions/refresh`: exchange a refresh token for new tokens."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema

from ags.api.openapi_components import (
    AUTHORIZATION,
    CORRELATION_ID,
    TENANT_ID,
    TokenResponseSerializer,
    error_responses,
)
from ags.api.request import headers
from ags.api.request.body import read_object
from ags.api.request.resolve import get_tenant_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.refresh import refresh
from ags.sessions.tokens.client_tokens import read_refresh_token, require_signing_key, token_response


class Refresh(GatewayView):
    http_method_names = ["post"]
    tenant_headers = ("HTTP_NV_TENANT_ID", "HTTP_TENANTID")

    @extend_schema(
        operation_id="refresh",
        summary="Exchange a refresh token for new access and refresh tokens",
        parameters=[TENANT_ID, AUTHORIZATION, CORRELATION_ID],
        request=None,
        auth=[{"refreshToken": []}],
        responses={200: TokenResponseSerializer, **error_responses(400, 401, 403, 413, 429, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Replace both tokens. The refresh token of the request stays valid for a short grace period."""
        tenant_id = headers.read_tenant_id(request.META, self.log_entry, allow_legacy_name=True)
        read_object(request, required=False, any_content_type=True)
        token = headers.read_bearer_token(request.META)

        async def rotate() -> dict[str, Any]:
            tenant = await get_tenant_or_403(tenant_id)
            require_signing_key(tenant)
            refresh_token = read_refresh_token(tenant, token)
            signed_on = await refresh(tenant, refresh_token, self.log_entry)
            return token_response(tenant, signed_on)

        return Response(await retry_once_if_stale(rotate))
