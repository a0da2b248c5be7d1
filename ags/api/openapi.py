"""The parts that the OpenAPI descriptions of all endpoints share."""

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers

from ags.api.request.parameters import NAME_MAX_LENGTH
from providers.contract import PARAMETER_MAX_LENGTH


class ErrorSerializer(serializers.Serializer[Any]):
    """The one shape of every refusal."""

    code = serializers.IntegerField(help_text="The number of this refusal in the table of errors.")
    reason = serializers.CharField(help_text="The same as a machine word.")
    message = serializers.CharField(help_text="The same as a sentence.")
    parameter = serializers.CharField(required=False, help_text="The parameter at fault, where it is one.")
    error = serializers.CharField(required=False, help_text="Under /oauth: the word of RFC 6749 section 5.2.")
    error_description = serializers.CharField(required=False, help_text="With error: the same as message.")
    correlationId = serializers.CharField(help_text="The x-correlation-id of this request.")  # noqa: N815


class ParameterSerializer(serializers.Serializer[Any]):
    """One parameter, as discovery declares it."""

    name = serializers.CharField(min_length=1, max_length=NAME_MAX_LENGTH)
    value = serializers.CharField(max_length=PARAMETER_MAX_LENGTH, allow_blank=True)


class TokenResponseSerializer(serializers.Serializer[Any]):
    """What a client app is given. All times are in seconds."""

    access_token = serializers.CharField(help_text="A JWT.")
    refresh_token = serializers.CharField(help_text="A JWT.")
    token_type = serializers.ChoiceField(choices=["bearer"])
    client_id = serializers.CharField(help_text="The device, to be sent as clientId at later sign-ons.")
    accountId = serializers.CharField()  # noqa: N815
    expires_in = serializers.IntegerField()
    refresh_expires_in = serializers.IntegerField()
    fixed_refresh_expires_in = serializers.IntegerField(help_text="The end of the sign-on; it never moves.")


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
    "The tenant. May be left out where the deployment sets a default.",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    required=True,
)
SERVICE_ID = _header(
    "x-auth-service-id",
    "The authServiceName of discovery.",
    r"^[!-+\--~]([ -+\--~]{0,126}[!-+\--~])?$",
    required=True,
)
CORRELATION_ID = _header(
    "x-correlation-id",
    "Correlates the messages of a call flow; echoed. 1 to 128 of `A-Z a-z 0-9 . _ : -`, or it is replaced.",
    # Refused is the comma alone, the trace of a header that arrived twice.
    r"^[^,]*$",
    required=False,
)

# A comma is the trace of a header that arrived twice.
AUTHORIZATION = _header("Authorization", "`Bearer` and the token.", r"^[^,]*$", required=True)

USER_TOKEN = _header(
    "User-Token", "The userAccountToken of the account that was chosen.", r"^[^,]+$", required=True
)

_DESCRIPTIONS = {
    400: "The request is not what discovery declares.",
    401: "The request is well formed, but what it presents proves nothing.",
    403: "Proven, but policy says no; or the tenant does not offer this service.",
    404: "There is no such tenant, or it offers no service.",
    413: "The body is larger than 64 KiB.",
    415: "The body is compressed, or not of the media type above in UTF-8.",
    429: "Too many refreshes in a short time. Retry-After holds the seconds to wait.",
    503: "The service is away for a moment; Retry-After tells for how long.",
}


def refusals(*statuses: int) -> Mapping[int, OpenApiResponse]:
    """Describe the refusals of an endpoint."""
    return {status: OpenApiResponse(ErrorSerializer, _DESCRIPTIONS[status]) for status in statuses}
