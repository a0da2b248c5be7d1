"""`POST /ags/signOn`: proof of an account in, access and refresh tokens out; or a choice of several."""

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
from ags.api.request.resolve import VerificationCache, get_service_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.account_choice import create_choice
from ags.sessions.services.sign_on import sign_on
from ags.sessions.tokens.jwt import require_signing_key, token_response
from providers.contract import Choice, Endpoint, FailureReason, VerificationFailed

# The names on the wire are camelCase.
# ruff: noqa: N815


class SignOnSerializer(DeviceSerializer):
    """What the client app posts: what proves the account, and which device it is on."""

    parameters = ParameterSerializer(many=True)


class AccountSerializer(serializers.Serializer[Any]):
    """One of several accounts."""

    accountInformation = serializers.CharField(help_text="What the subscriber knows it by.")
    userAccountToken = serializers.CharField(
        help_text="To be sent as User-Token to subsequentSignOn. Opaque."
    )


class AccountsSerializer(serializers.Serializer[Any]):
    """What the subscriber chooses from, within ten minutes."""

    accounts = AccountSerializer(many=True)


class SignOn(GatewayView):
    """Called by the client app."""

    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOn",
        summary="Exchange the subscriber's own credentials for access and refresh tokens",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SignOnSerializer,
        responses={
            201: TokenResponseSerializer,
            300: AccountsSerializer,
            **refusals(400, 401, 403, 413, 415, 503),
        },
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign a device on by the parameters that discovery declares.

        Where they prove several accounts, nothing is signed on yet: choose one with subsequentSignOn.
        """
        entry = get_log_entry(request)
        tenant_id = headers.tenant_id(request.META, entry)
        service_name = headers.service_name(request.META, entry)
        body = read_object(request)
        given = parameters.read(body)
        device = read_device(body)
        cache = VerificationCache()

        async def verify_and_sign_on() -> Response:
            tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.SIGNON)
            checked = parameters.check(service.strategy.parameter_schema, given)
            require_signing_key(tenant)
            proven = await cache.verify(tenant, service, checked)
            if not isinstance(proven, Choice):
                signed_on = await sign_on(tenant, service, proven, device, entry.correlation_id)
                return Response(token_response(tenant, signed_on), status=201)
            if Endpoint.SUBSEQUENT_SIGNON not in service.strategy.endpoints:
                raise VerificationFailed(FailureReason.ACCOUNT_AMBIGUOUS)
            tokens = await create_choice(tenant, service, proven, device, entry.correlation_id)
            return Response(_to_choose_from(proven, tokens), status=300)

        return await retry_once_if_stale(verify_and_sign_on)


def _to_choose_from(choice: Choice, tokens: list[str]) -> dict[str, Any]:
    return {
        "accounts": [
            {"accountInformation": account.information, "userAccountToken": token}
            for account, token in zip(choice.accounts, tokens, strict=True)
        ]
    }
