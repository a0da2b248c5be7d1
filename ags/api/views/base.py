"""The base class of the API views."""

from typing import Any, ClassVar

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.views import APIView

from ags.api.access_log import AccessLogEntry
from ags.api.errors import exception_handler
from ags.api.responses import Response

__all__ = ["GatewayView", "Response"]


class GatewayView(APIView):
    """An asynchronous API view: the methods in `http_method_names` are coroutines.

    It omits DRF's content negotiation, parsing and authentication
    (docs/decisions/0018-what-a-request-costs.md).
    """

    tenant_headers: ClassVar[tuple[str, ...]] = ("HTTP_NV_TENANT_ID",)
    """The headers that name the tenant, the first one first, before AGS_DEFAULT_TENANT. Empty: none."""

    log_entry: AccessLogEntry

    async def dispatch(  # type: ignore[override] # the middleware awaits it
        self, request: HttpRequest, *_: Any, **__: Any
    ) -> HttpResponse:
        self.log_entry = request.log_entry  # type: ignore[attr-defined] # set by the middleware
        name = str(request.method).lower()
        try:
            if name not in self.http_method_names or not hasattr(self, name):
                raise MethodNotAllowed(name)
            response: HttpResponse = await getattr(self, name)(request)
        except Exception as error:  # noqa: BLE001 - each exception has a response
            return exception_handler(error, {"request": request, "view": self})
        return response
