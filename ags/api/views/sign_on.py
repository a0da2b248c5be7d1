"""`POST /ags/signOn`, `/ags/subsequentSignOn` and `/ags/signOnWithSessionToken`."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema
from rest_framework import serializers

from ags.api.openapi_components import (
    CORRELATION_ID,
    SERVICE_ID,
    TENANT_ID,
    USER_TOKEN,
    ParameterSerializer,
    TokenResponseSerializer,
    error_responses,
)
from ags.api.request import headers
from ags.api.request.body import read_object
from ags.api.request.device import DeviceSerializer, read_device
from ags.api.request.parameters import read_parameters, validate_parameters
from ags.api.request.resolve import VerificationCache, get_service_or_403, retry_once_if_stale
from ags.api.views.base import GatewayView, Response
from ags.sessions.services.account_choice import create_choice, redeem_choice
from ags.sessions.services.redeem import redeem
from ags.sessions.services.sign_on import sign_on
from ags.sessions.tokens.client_tokens import require_signing_key, token_response
from providers.contract import (
    Choice,
    Endpoint,
    FailureReason,
    Parameter,
    ParameterSchema,
    VerificationFailed,
)

# The names on the wire are camelCase.
# ruff: noqa: N815


class SignOnSerializer(DeviceSerializer):
    """The subscriber's credentials, and the device."""

    parameters = ParameterSerializer(many=True)


class AccountSerializer(serializers.Serializer[Any]):
    """One of several accounts."""

    accountInformation = serializers.CharField(help_text="A name of the account for the subscriber.")
    userAccountToken = serializers.CharField(help_text="Send it as User-Token to subsequentSignOn. Opaque.")


class AccountsSerializer(serializers.Serializer[Any]):
    """The accounts of the subscriber, who must choose one within ten minutes."""

    accounts = AccountSerializer(many=True)


class SignOn(GatewayView):
    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOn",
        summary="Exchange the subscriber's own credentials for access and refresh tokens",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SignOnSerializer,
        responses={
            201: TokenResponseSerializer,
            300: AccountsSerializer,
            **error_responses(400, 401, 403, 413, 415, 429, 503),
        },
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign on a device with the parameters that discovery declares.

        If the credentials match several accounts, the response is 300 and the device is not signed on: choose
        an account with subsequentSignOn.
        """
        tenant_id = headers.read_tenant_id(request.META, self.log_entry)
        service_name = headers.read_service_name(request.META, self.log_entry)
        body = read_object(request)
        pairs = read_parameters(body)
        cache = VerificationCache()
        cache.device = device = read_device(body, self.log_entry)

        async def verify_and_sign_on() -> Response:
            tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.SIGNON)
            parameters = validate_parameters(service.strategy.parameter_schema, pairs)
            require_signing_key(tenant)
            identity = await cache.verify(tenant, service, parameters)
            if not isinstance(identity, Choice):
                signed_on = await sign_on(
                    tenant,
                    service,
                    identity,
                    device,
                    self.log_entry,
                    username_hash=cache.username_hash,
                )
                return Response(token_response(tenant, signed_on), status=201)
            if Endpoint.SUBSEQUENT_SIGNON not in service.strategy.endpoints:
                raise VerificationFailed(FailureReason.ACCOUNT_AMBIGUOUS)
            tokens = await create_choice(
                tenant,
                service,
                identity,
                device,
                self.log_entry,
                username_hash=cache.username_hash,
            )
            return Response(_accounts_json(identity, tokens), status=300)

        try:
            response = await retry_once_if_stale(verify_and_sign_on)
        except Exception as error:
            await cache.forget_failure(error)
            raise
        await cache.forget_failure()
        return response


def _accounts_json(choice: Choice, tokens: list[str]) -> dict[str, Any]:
    return {
        "accounts": [
            {"accountInformation": account.information, "userAccountToken": token}
            for account, token in zip(choice.accounts, tokens, strict=True)
        ]
    }


class SubsequentSignOnSerializer(serializers.Serializer[Any]):
    """An optional body: the User-Token header identifies the account and the device."""

    parameters = ParameterSerializer(many=True, required=False, help_text="Ignored.")


class SubsequentSignOn(GatewayView):
    http_method_names = ["post"]

    @extend_schema(
        operation_id="subsequentSignOn",
        summary="Choose one of several accounts, and sign on to it",
        parameters=[TENANT_ID, SERVICE_ID, USER_TOKEN, CORRELATION_ID],
        request=SubsequentSignOnSerializer,
        responses={201: TokenResponseSerializer, **error_responses(400, 401, 403, 413, 415, 429, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign on the device of the signOn request. Only a successful response uses the choice up."""
        tenant_id = headers.read_tenant_id(request.META, self.log_entry)
        service_name = headers.read_service_name(request.META, self.log_entry)
        token = headers.read_user_token(request.META)
        body = read_object(request, required=False)
        if "parameters" in body:
            read_parameters(body)

        async def redeem_and_sign_on() -> dict[str, Any]:
            tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.SUBSEQUENT_SIGNON)
            require_signing_key(tenant)
            signed_on = await redeem_choice(tenant, service, token, self.log_entry)
            return token_response(tenant, signed_on)

        return Response(await retry_once_if_stale(redeem_and_sign_on), status=201)


class SessionTokenParameters(serializers.Serializer[Any]):
    sessionToken = Parameter(
        description="The session token that the operator has shown, as a QR code for example.", max_length=128
    )


SESSION_TOKEN_SCHEMA = ParameterSchema(SessionTokenParameters)


class SessionTokenSignOnSerializer(DeviceSerializer):
    """A session token, and the device."""

    parameters = ParameterSerializer(many=True)


class SignOnWithSessionToken(GatewayView):
    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOnWithSessionToken",
        summary="Redeem a session token for access and refresh tokens",
        parameters=[TENANT_ID, SERVICE_ID, CORRELATION_ID],
        request=SessionTokenSignOnSerializer,
        responses={201: TokenResponseSerializer, **error_responses(400, 401, 403, 413, 415, 429, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """Sign on a device. Only a successful response uses the session token up."""
        tenant_id = headers.read_tenant_id(request.META, self.log_entry)
        service_name = headers.read_service_name(request.META, self.log_entry)
        body = read_object(request)
        parameters = validate_parameters(SESSION_TOKEN_SCHEMA, read_parameters(body))
        device = read_device(body, self.log_entry)

        async def redeem_and_sign_on() -> dict[str, Any]:
            tenant, service = await get_service_or_403(
                tenant_id, service_name, Endpoint.SIGNON_WITH_SESSION_TOKEN
            )
            require_signing_key(tenant)
            token = parameters["sessionToken"]
            signed_on = await redeem(tenant, service, token, device, self.log_entry)
            return token_response(tenant, signed_on)

        return Response(await retry_once_if_stale(redeem_and_sign_on), status=201)
