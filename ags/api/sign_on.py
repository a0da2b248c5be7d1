"""`POST /ags/signOnWithSessionToken`: a session token in, access and refresh tokens out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ags.api import headers, parameters, parsing
from ags.api.errors import SIGN_ON_MALFORMED, ApiError
from ags.api.offer import offered, twice_at_most
from ags.api.record import record_of
from ags.api.schema import CORRELATION_ID, SERVICE_ID, TENANT_ID, ParameterSerializer, refusals
from ags.api.view import GateView
from ags.sessions.client_tokens import bundle, demand_signer
from ags.sessions.sign_on import KnownDevice, NewDevice, redeem
from providers.contract import Declaration, Endpoint, Parameter

# The names on the wire are camelCase.
# ruff: noqa: N815

CLIENT_ID_MAX_LENGTH = 128


class SessionTokenParameters(serializers.Serializer[Any]):
    """What the client app sends, whatever the service."""

    sessionToken = Parameter(
        description="The session token that the operator has shown, as a QR code for example.", max_length=128
    )


DECLARATION = Declaration(SessionTokenParameters)


class SignOnRequestSerializer(serializers.Serializer[Any]):
    """What the client app posts: a session token, and which device it is on."""

    parameters = ParameterSerializer(many=True)
    deviceInformation = serializers.DictField(
        required=False, help_text="At the first sign-on of the device; kept whole."
    )
    clientId = serializers.CharField(
        required=False,
        max_length=CLIENT_ID_MAX_LENGTH,
        help_text="At later ones: the client_id of the first.",
    )


class BundleSerializer(serializers.Serializer[Any]):
    """What it is given. All times are in seconds."""

    access_token = serializers.CharField(help_text="A JWT.")
    refresh_token = serializers.CharField(help_text="A JWT.")
    token_type = serializers.ChoiceField(choices=["bearer"])
    client_id = serializers.CharField(help_text="The device, to be sent as clientId at later sign-ons.")
    accountId = serializers.CharField()
    expires_in = serializers.IntegerField()
    refresh_expires_in = serializers.IntegerField()
    fixed_refresh_expires_in = serializers.IntegerField(help_text="The end of the sign-on; it never moves.")


class SignOnWithSessionToken(GateView):
    """Called by the client app."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOnWithSessionToken",
        summary="Redeem a session token for access and refresh tokens",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SignOnRequestSerializer,
        responses={201: BundleSerializer, **refusals(400, 401, 403, 413, 415, 503)},
    )
    def post(self, request: Request) -> Response:
        """Sign a device on. The session token is spent with it, and with nothing else."""
        record = record_of(request)
        tenant_id = headers.tenant_id(request.META, record)
        service_name = headers.service_name(request.META, record)
        body = parsing.read_object(request)
        given = parameters.check(DECLARATION, parameters.read(body))
        device = _device(body)

        def attempt() -> dict[str, Any]:
            tenant, service = offered(tenant_id, service_name, Endpoint.SIGNON_WITH_SESSION_TOKEN)
            demand_signer(tenant)
            sign_on = redeem(tenant, service, given["sessionToken"], device, record.correlation_id)
            return bundle(tenant, sign_on)

        return Response(twice_at_most(attempt, tenant_id), status=201)


def _device(body: Mapping[str, Any]) -> NewDevice | KnownDevice:
    match {name: body[name] for name in ("deviceInformation", "clientId") if name in body}:
        case {"deviceInformation": dict() as information, **others} if not others:
            return NewDevice(information)
        case {"clientId": str() as client_id, **others} if not others and (
            1 <= len(client_id) <= CLIENT_ID_MAX_LENGTH
        ):
            return KnownDevice(client_id)
    raise ApiError(SIGN_ON_MALFORMED)
