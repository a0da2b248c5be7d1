"""`POST /ags/getSessionToken`: exchange credentials of an account for a session token."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from ags.api.openapi_components import (
    CORRELATION_ID,
    SERVICE_ID,
    TENANT_ID,
    ParameterSerializer,
    error_responses,
)
from ags.api.request import headers
from ags.api.request.body import read_object
from ags.api.request.parameters import read_parameters, validate_parameters
from ags.api.request.resolve import VerificationCache, get_service_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.issue import issue
from providers.contract import Choice, Endpoint, FailureReason, VerificationFailed


class SessionTokenRequestSerializer(serializers.Serializer[Any]):
    """The request of the operator's head-end."""

    parameters = ParameterSerializer(many=True)


class SessionTokenSerializer(serializers.Serializer[Any]):
    """A session token."""

    sessionToken = serializers.RegexField("^[a-z0-9]{26}$")  # noqa: N815 - the name on the wire


class GetSessionToken(GatewayView):
    http_method_names = ["post"]

    @extend_schema(
        operation_id="getSessionToken",
        summary="Get a session token for a subscriber's account",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SessionTokenRequestSerializer,
        responses={200: SessionTokenSerializer, **error_responses(400, 401, 403, 413, 415, 429, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Exchange the parameters that discovery declares for an opaque session token.

        The token can be redeemed once, within the lifetime set by the service.
        """
        tenant_id = headers.read_tenant_id(request.META, self.log_entry)
        service_name = headers.read_service_name(request.META, self.log_entry)
        pairs = read_parameters(read_object(request))
        cache = VerificationCache()

        async def issue_token() -> str:
            tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.GET_SESSION_TOKEN)
            parameters = validate_parameters(service.strategy.parameter_schema, pairs)
            identity = await cache.verify(tenant, service, parameters)
            if isinstance(identity, Choice):
                raise VerificationFailed(FailureReason.ACCOUNT_AMBIGUOUS)
            return await issue(tenant, service, identity, self.log_entry)

        try:
            token = await retry_once_if_stale(issue_token)
        except Exception as error:
            await cache.forget_failure(error)
            raise
        await cache.forget_failure()
        return Response({"sessionToken": token})
