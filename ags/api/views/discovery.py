"""`GET /ags/servicediscovery`: which services a tenant offers, and what each wants to know."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

from django.http import HttpRequest, HttpResponse
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers

from ags.api.access_log import get_log_entry
from ags.api.errors import NO_SERVICES, ApiError
from ags.api.etags import answer, etag_of
from ags.api.openapi import CORRELATION_ID, TENANT_ID, refusals
from ags.api.request import headers
from ags.api.request.resolve import get_tenant
from ags.api.views import sign_on_with_session_token
from ags.api.views.base import GatewayView
from providers.contract import Endpoint, ParameterSchema
from tenants.tenant_snapshot import ServiceSnapshot, TenantSnapshot

# The names on the wire are camelCase.
# ruff: noqa: N815


class ParameterPropertySerializer(serializers.Serializer[Any]):
    """A parameter that an endpoint of the service wants."""

    name = serializers.CharField()
    mandatory = serializers.BooleanField()
    isPassword = serializers.BooleanField(help_text="Hide what is typed.")
    description = serializers.CharField()
    maxLength = serializers.IntegerField(help_text="In characters.")


class EndpointSerializer(serializers.Serializer[Any]):
    """A call that the service answers."""

    name = serializers.ChoiceField(choices=[endpoint.name for endpoint in Endpoint])
    path = serializers.CharField(help_text="Relative to /ags.")
    parameterProperties = ParameterPropertySerializer(many=True)


class DisplayAttributesSerializer(serializers.Serializer[Any]):
    """What a person sees."""

    name = serializers.CharField()
    logo = serializers.CharField(help_text="An https address, or empty.")


class ServiceSerializer(serializers.Serializer[Any]):
    """A service."""

    authServiceName = serializers.CharField(help_text="To be sent as x-auth-service-id.")
    displayAttributes = DisplayAttributesSerializer()
    endpoints = EndpointSerializer(many=True)


class DiscoverySerializer(serializers.Serializer[Any]):
    """The enabled services of a tenant."""

    availableServices = ServiceSerializer(many=True)


class ServiceDiscovery(GatewayView):
    """Called by the operator's head-end and by client apps."""

    http_method_names = ["get", "head"]

    @extend_schema(
        operation_id="serviceDiscovery",
        summary="List the authentication services of a tenant",
        parameters=[TENANT_ID, CORRELATION_ID],
        responses={
            200: DiscoverySerializer,
            304: OpenApiResponse(description="Not changed since the ETag in If-None-Match."),
            **refusals(400, 404, 503),
        },
    )
    async def get(self, request: HttpRequest) -> HttpResponse:
        """List what is enabled, in the order of the names. No credential is needed."""
        tenant = await get_tenant(headers.tenant_id(request.META, get_log_entry(request)))
        if tenant is None or not tenant.services:
            raise ApiError(NO_SERVICES, why="tenant_not_available" if tenant is None else None)
        body, etag = _document(tenant)
        return answer(
            request.META, body, etag, **{"Cache-Control": "no-cache", "Vary": "nv-tenant-id, origin"}
        )


# Written once for each view of a tenant, and gone with it.
_documents: WeakKeyDictionary[TenantSnapshot, tuple[bytes, str]] = WeakKeyDictionary()


def _document(tenant: TenantSnapshot) -> tuple[bytes, str]:
    found = _documents.get(tenant)
    if found is None:
        services = [_service(service) for service in tenant.services.values()]
        body = json.dumps({"availableServices": services}, ensure_ascii=False).encode()
        found = _documents[tenant] = (body, etag_of(body))
    return found


def _service(service: ServiceSnapshot) -> dict[str, Any]:
    declared = {
        Endpoint.SIGNON: _properties(service.strategy.parameter_schema),
        Endpoint.SUBSEQUENT_SIGNON: [],
        Endpoint.GET_SESSION_TOKEN: _properties(service.strategy.parameter_schema),
        Endpoint.SIGNON_WITH_SESSION_TOKEN: _properties(sign_on_with_session_token.SCHEMA),
        Endpoint.SIGNOUT: [],
    }
    return {
        "authServiceName": service.name,
        "displayAttributes": {"name": service.display_name, "logo": service.logo},
        "endpoints": [
            {"name": endpoint.name, "path": endpoint.value, "parameterProperties": declared[endpoint]}
            for endpoint in service.strategy.endpoints
        ],
    }


def _properties(schema: ParameterSchema) -> list[dict[str, Any]]:
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
