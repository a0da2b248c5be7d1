"""`GET /ags/servicediscovery`: the services of a tenant and their parameters."""

import json
from typing import Any
from weakref import WeakKeyDictionary

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers

from ags.api.errors import NO_SERVICES, ApiError
from ags.api.openapi_components import CORRELATION_ID, TENANT_ID, error_responses
from ags.api.request import headers
from ags.api.request.resolve import get_tenant
from ags.api.responses import compute_etag, conditional_response
from ags.api.views.base import GatewayView
from ags.api.views.sign_on import SESSION_TOKEN_SCHEMA
from providers.contract import Endpoint, ParameterSchema
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# The names on the wire are camelCase.
# ruff: noqa: N815


class ParameterPropertySerializer(serializers.Serializer[Any]):
    """A parameter of an endpoint."""

    name = serializers.CharField()
    mandatory = serializers.BooleanField()
    isPassword = serializers.BooleanField(help_text="Hide the input.")
    description = serializers.CharField()
    maxLength = serializers.IntegerField(help_text="In characters.")


class EndpointSerializer(serializers.Serializer[Any]):
    """An endpoint of the service."""

    name = serializers.ChoiceField(choices=[endpoint.name for endpoint in Endpoint])
    path = serializers.CharField(help_text="Relative to /ags.")
    parameterProperties = ParameterPropertySerializer(many=True)


class DisplayAttributesSerializer(serializers.Serializer[Any]):
    """What a client app shows to the subscriber."""

    name = serializers.CharField()
    logo = serializers.CharField(help_text="An https URL, or empty.")


class ServiceSerializer(serializers.Serializer[Any]):
    """An authentication service."""

    authServiceName = serializers.CharField(help_text="Send it as x-auth-service-id.")
    displayAttributes = DisplayAttributesSerializer()
    endpoints = EndpointSerializer(many=True)


class DiscoverySerializer(serializers.Serializer[Any]):
    """The enabled services of a tenant."""

    availableServices = ServiceSerializer(many=True)


class ServiceDiscovery(GatewayView):
    http_method_names = ["get", "head"]

    @extend_schema(
        operation_id="serviceDiscovery",
        summary="List the authentication services of a tenant",
        parameters=[TENANT_ID, CORRELATION_ID],
        responses={
            200: DiscoverySerializer,
            304: OpenApiResponse(description="The ETag in If-None-Match is current."),
            **error_responses(400, 404, 429, 503),
        },
    )
    async def get(self, request: HttpRequest) -> HttpResponse:
        """List the enabled services, sorted by name. No credentials are needed."""
        tenant = await get_tenant(headers.read_tenant_id(request.META, self.log_entry))
        if tenant is None or not tenant.services:
            raise ApiError(NO_SERVICES, log_reason="tenant_not_available" if tenant is None else None)
        body, etag = _get_body(tenant)
        return conditional_response(
            request.META, body, etag, **{"Cache-Control": "no-cache", "Vary": "nv-tenant-id, origin"}
        )


_bodies: WeakKeyDictionary[TenantSnapshot, tuple[bytes, str]] = WeakKeyDictionary()


def _get_body(tenant: TenantSnapshot) -> tuple[bytes, str]:
    cached = _bodies.get(tenant)
    if cached is None:
        services = [_service_json(service) for service in tenant.services.values()]
        body = json.dumps({"availableServices": services}, ensure_ascii=False).encode()
        cached = _bodies[tenant] = (body, compute_etag(body))
    return cached


def _service_json(service: ServiceSnapshot) -> dict[str, Any]:
    properties = {
        Endpoint.SIGNON: _parameter_properties(service.strategy.parameter_schema),
        Endpoint.SUBSEQUENT_SIGNON: [],
        Endpoint.GET_SESSION_TOKEN: _parameter_properties(service.strategy.parameter_schema),
        Endpoint.SIGNON_WITH_SESSION_TOKEN: _parameter_properties(SESSION_TOKEN_SCHEMA),
        Endpoint.SIGNOUT: [],
    }
    return {
        "authServiceName": service.name,
        "displayAttributes": {"name": service.display_name, "logo": service.logo},
        "endpoints": [
            {"name": endpoint.name, "path": endpoint.value, "parameterProperties": properties[endpoint]}
            for endpoint in service.strategy.endpoints
        ],
    }


def _parameter_properties(schema: ParameterSchema) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "mandatory": parameter.required,
            "isPassword": parameter.is_password,
            "description": parameter.help_text,
            "maxLength": parameter.max_length,
        }
        for name, parameter in schema.fields.items()
    ]
