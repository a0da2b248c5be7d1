"""`POST /ags/signOut`: end a sign-on."""

from django.http import HttpRequest
from drf_spectacular.utils import extend_schema, inline_serializer

from ags.api.openapi_components import AUTHORIZATION, CORRELATION_ID, SERVICE_ID, TENANT_ID, error_responses
from ags.api.request import headers
from ags.api.request.resolve import get_service_or_403
from ags.api.views.base import GatewayView, Response
from ags.sessions.exceptions import InvalidReason, TokenRejected
from ags.sessions.services.revoke import sign_out
from ags.sessions.tokens.client_tokens import read_access_token
from providers.contract import Endpoint


class SignOut(GatewayView):
    http_method_names = ["post"]

    @extend_schema(
        operation_id="signOut",
        summary="End a sign-on",
        parameters=[TENANT_ID, SERVICE_ID, AUTHORIZATION, CORRELATION_ID],
        request=None,
        auth=[{"accessToken": []}],
        responses={200: inline_serializer("SignedOut", {}), **error_responses(400, 401, 403, 429, 503)},
    )
    async def post(self, request: HttpRequest) -> Response:
        """End the sign-on of the access token. Its access and refresh tokens become invalid."""
        tenant_id = headers.read_tenant_id(request.META, self.log_entry)
        service_name = headers.read_service_name(request.META, self.log_entry)
        token = headers.read_bearer_token(request.META, scheme_optional=True)
        tenant, service = await get_service_or_403(tenant_id, service_name, Endpoint.SIGNOUT)
        access_token = read_access_token(tenant, token)
        if not await sign_out(tenant.id, access_token, self.log_entry, service=service.name):
            raise TokenRejected(InvalidReason.SIGN_ON_ENDED)
        return Response({})
