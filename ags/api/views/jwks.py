"""`GET /.well-known/jwks.json`: the keys by which services verify access tokens without asking AGS."""

from __future__ import annotations

import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema, inline_serializer
from rest_framework import serializers

from ags.api.access_log import get_log_entry
from ags.api.errors import NO_KEY_SET, ApiError
from ags.api.etags import answer, etag_of
from ags.api.openapi import CORRELATION_ID, refusals
from ags.api.request.resolve import get_tenant
from ags.api.views.base import GatewayView

MAX_AGE = 300
"""Seconds for which a verifier may keep the set; a new key is published for longer before it signs."""

KEY_SET = inline_serializer("KeySet", {"keys": serializers.ListField(child=serializers.DictField())})


class KeySet(GatewayView):
    """The public halves of a tenant's signing keys (RFC 7517)."""

    http_method_names = ["get", "head"]

    @extend_schema(
        operation_id="keySet",
        summary="The key set of a tenant",
        parameters=[
            OpenApiParameter("tenant", str, description="The tenant ID.", required=True),
            CORRELATION_ID,
        ],
        responses={200: KEY_SET, **refusals(400, 404, 503)},
    )
    async def get(self, request: HttpRequest) -> HttpResponse:
        """List those that sign, that will, and whose last token has not expired; never a shared secret."""
        tenant_id = request.GET.get("tenant") or settings.AGS_DEFAULT_TENANT
        tenant = await get_tenant(tenant_id)
        if tenant is None:
            raise ApiError(NO_KEY_SET)
        get_log_entry(request).tenant = tenant.id
        body = json.dumps({"keys": [dict(key) for key in tenant.jwks]}).encode()
        return answer(
            request.META,
            body,
            etag_of(body),
            **{"Cache-Control": f"public, max-age={MAX_AGE}", "Vary": "origin"},
        )
