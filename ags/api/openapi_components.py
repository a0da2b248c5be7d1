"""Parts of the OpenAPI description that several endpoints share."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from ags.api.request.parameters import NAME_MAX_LENGTH
from providers.contract import PARAMETER_MAX_LENGTH


class ErrorSerializer(serializers.Serializer[Any]):
    """The body of every error response."""

    code = serializers.IntegerField(help_text="The code of the error in the table of errors.")
    reason = serializers.CharField(help_text="The name of the error, for programs.")
    message = serializers.CharField(help_text="A description of the error, for people.")
    parameter = serializers.CharField(required=False, help_text="The name of the invalid parameter.")
    error = serializers.CharField(
        required=False, help_text="Only under /oauth: the error code of RFC 6749 section 5.2."
    )
    error_description = serializers.CharField(
        required=False, help_text="Only with error: the same as message."
    )
    correlationId = serializers.CharField(help_text="The x-correlation-id of this request.")  # noqa: N815


class ParameterSerializer(serializers.Serializer[Any]):
    """A parameter that discovery declares."""

    name = serializers.CharField(min_length=1, max_length=NAME_MAX_LENGTH)
    value = serializers.CharField(max_length=PARAMETER_MAX_LENGTH, allow_blank=True)


class TokenResponseSerializer(serializers.Serializer[Any]):
    """The tokens of a sign-on. All durations are in seconds."""

    access_token = serializers.CharField(help_text="A JWT.")
    refresh_token = serializers.CharField(help_text="A JWT.")
    token_type = serializers.ChoiceField(choices=["bearer"])
    client_id = serializers.CharField(help_text="The device. Send it as clientId at later sign-ons.")
    accountId = serializers.CharField()  # noqa: N815
    expires_in = serializers.IntegerField()
    refresh_expires_in = serializers.IntegerField()
    fixed_refresh_expires_in = serializers.IntegerField(
        help_text="Until the end of the sign-on. A refresh does not extend it."
    )


def _header(name: str, description: str, pattern: str, *, required: bool) -> OpenApiParameter:
    return OpenApiParameter(
        name,
        {"type": "string", "pattern": pattern},
        OpenApiParameter.HEADER,
        required=required,
        description=description,
    )


TENANT_ID = _header(
    "nv-tenant-id",
    "The tenant. Optional if the deployment sets a default.",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    required=True,
)
SERVICE_ID = _header(
    "x-auth-service-id",
    "The authServiceName from discovery.",
    r"^[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?$",
    required=True,
)
CORRELATION_ID = _header(
    "x-correlation-id",
    "Correlates the requests of a call flow; returned in the response. A value that is not 1 to 128 "
    "characters of `A-Z a-z 0-9 . _ : -` is replaced.",
    # Only a comma is an error: servers join repeated headers with it.
    r"^[^,]*$",
    required=False,
)

AUTHORIZATION = _header("Authorization", "`Bearer` followed by the token.", r"^[^,]*$", required=True)

USER_TOKEN = _header("User-Token", "The userAccountToken of the chosen account.", r"^[^,]+$", required=True)

_DESCRIPTIONS = {
    400: "The request is not what discovery declares.",
    401: "The credentials are invalid or have expired.",
    403: "The credentials are valid, but access is denied; or the tenant does not offer this service.",
    404: "There is no such tenant, or it offers no services.",
    413: "The body is larger than 64 KiB.",
    415: "The body is compressed, or is not in UTF-8 with the media type above.",
    429: "Too many requests in a short time. Retry-After contains the seconds to wait.",
    503: "The service is temporarily unavailable. Retry-After contains the seconds to wait.",
}


_RESPONSE_HEADERS = {
    "x-ags-config": {
        "description": "The version of the configuration that the process serves, the same for all tenants.",
        "required": True,
        "schema": {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"},
    }
}


def add_response_headers(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """Add the headers that all responses have to the OpenAPI document, as a hook of drf-spectacular."""
    result["components"]["headers"] = _RESPONSE_HEADERS
    references = {name: {"$ref": f"#/components/headers/{name}"} for name in _RESPONSE_HEADERS}
    for operations in result["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                response["headers"] = {**response.get("headers", {}), **references}
    return result


def error_responses(*statuses: int) -> Mapping[int, OpenApiResponse]:
    return {status: OpenApiResponse(ErrorSerializer, _DESCRIPTIONS[status]) for status in statuses}
