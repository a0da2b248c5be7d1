"""`POST /ags/subsequentSignOn`: the chosen one of several accounts in, access and refresh tokens out."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from ags.api.access_log import get_log_entry
from ags.api.openapi import (
    CORRELATION_ID,
    SERVICE_ID,
    TENANT_ID,
    USER_TOKEN,
    ParameterSerializer,
    TokenResponseSerializer,
    refusals,
)
from ags.api.request import headers, parameters
from ags.api.request.body import read_optional_object
from ags.api.request.resolve import get_service_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.account_choice import redeem_choice
from ags.sessions.tokens.jwt import require_signing_key, token_response
from providers.contract import Endpoint


class SubsequentSignOnSerializer(serializers.Serializer[Any]):
    """What the client app may post: all that counts is in the header, and known from signOn."""

    parameters = ParameterSerializer(many=True, required=False, help_text="Ignored.")


class SubsequentSignOn(GatewayView):
    """Called by the client app."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="subsequentSignOn",
        summary="Choose one of several accounts, and sign on to it",
        parameters=[TENANT_ID, SERVICE_ID, USER_TOKEN, CORRELATION_ID],
        request=SubsequentSignOnSerializer,
        responses={201: TokenResponseSerializer, **refusals(400, 401, 403, 413, 415, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign the device on that asked in signOn. That, and nothing else, uses the choice up."""
        entry = get_log_entry(request)
        tenant_id = headers.tenant_id(request.META, entry)
        service_name = headers.service_name(request.META, entry)
        token = headers.user_token(request.META)
        body = read_optional_object(request)
        if "parameters" in body:
            parameters.read(body)

        async def sign_on() -> dict[str, Any]:
            tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.SUBSEQUENT_SIGNON)
            require_signing_key(tenant)
            signed_on = await redeem_choice(tenant, service, token, entry.correlation_id)
            return token_response(tenant, signed_on)

        return Response(await retry_once_if_stale(sign_on), status=201)
