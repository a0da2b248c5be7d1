"""`GET /.well-known/jwks.json`: the public keys for verifying access tokens."""

import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers

from ags.api.errors import NO_KEY_SET, ApiError
from ags.api.openapi_components import CORRELATION_ID, error_responses
from ags.api.request.resolve import get_tenant
from ags.api.responses import compute_etag, conditional_response
from ags.api.views.base import GatewayView

MAX_AGE = 300
"""Seconds for which clients may cache the JWK set. A new key is published for longer before it signs."""

JWKS_SERIALIZER = inline_serializer("KeySet", {"keys": serializers.ListField(child=serializers.DictField())})


class JWKS(GatewayView):
    http_method_names = ["get", "head"]

    @extend_schema(
        operation_id="keySet",
        summary="Get the JWK set of a tenant",
        parameters=[
            OpenApiParameter("tenant", str, description="The tenant ID.", required=True),
            CORRELATION_ID,
        ],
        responses={200: JWKS_SERIALIZER, **error_responses(400, 404, 429, 503)},
    )
    async def get(self, request: HttpRequest) -> HttpResponse:
        """List the public keys, from before their first signature until the last token expires.

        Shared secrets are never listed.
        """
        tenant_id = request.GET.get("tenant") or settings.AGS_DEFAULT_TENANT
        tenant = await get_tenant(tenant_id)
        if tenant is None:
            raise ApiError(NO_KEY_SET)
        self.log_entry.tenant = tenant.id
        body = json.dumps({"keys": [dict(key) for key in tenant.jwks]}).encode()
        return conditional_response(
            request.META,
            body,
            compute_etag(body),
            **{"Cache-Control": f"public, max-age={MAX_AGE}", "Vary": "origin"},
        )
