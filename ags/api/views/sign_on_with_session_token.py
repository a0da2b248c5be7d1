"""`POST /ags/signOnWithSessionToken`: a session token in, access and refresh tokens out."""

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
    ParameterSerializer,
    TokenResponseSerializer,
    refusals,
)
from ags.api.request import headers, parameters
from ags.api.request.body import read_object
from ags.api.request.device import DeviceSerializer, read_device
from ags.api.request.resolve import get_service_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.redeem import redeem
from ags.sessions.tokens.jwt import require_signing_key, token_response
from providers.contract import Endpoint, Parameter, ParameterSchema


class SessionTokenParameters(serializers.Serializer[Any]):
    """What the client app sends, whatever the service."""

    sessionToken = Parameter(  # noqa: N815 - the name on the wire
        description="The session token that the operator has shown, as a QR code for example.", max_length=128
    )


SCHEMA = ParameterSchema(SessionTokenParameters)


class SessionTokenSignOnSerializer(DeviceSerializer):
    """What the client app posts: a session token, and which device it is on."""

    parameters = ParameterSerializer(many=True)


class SignOnWithSessionToken(GatewayView):
    """Called by the client app."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOnWithSessionToken",
        summary="Redeem a session token for access and refresh tokens",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SessionTokenSignOnSerializer,
        responses={201: TokenResponseSerializer, **refusals(400, 401, 403, 413, 415, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign a device on. The session token is spent with it, and with nothing else."""
        entry = get_log_entry(request)
        tenant_id = headers.tenant_id(request.META, entry)
        service_name = headers.service_name(request.META, entry)
        body = read_object(request)
        given = parameters.check(SCHEMA, parameters.read(body))
        device = read_device(body)

        async def sign_on() -> dict[str, Any]:
            tenant, service = await get_service_or_403(
                tenant_id, service_name, Endpoint.SIGNON_WITH_SESSION_TOKEN
            )
            require_signing_key(tenant)
            signed_on = await redeem(tenant, service, given["sessionToken"], device, entry.correlation_id)
            return token_response(tenant, signed_on)

        return Response(await retry_once_if_stale(sign_on), status=201)
