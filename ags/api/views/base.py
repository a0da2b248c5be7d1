"""The base of the API's views."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.views import APIView

from ags.api.errors import exception_handler
from ags.api.response import Response

__all__ = ["GatewayView", "Response"]


class GatewayView(APIView):
    """Answers the methods in `http_method_names`, each with a coroutine.

    DRF's steps before and after a request are left out: there is one format, so nothing is negotiated; views
    parse strictly by themselves; callers authenticate by what they present to a view
    (docs/decisions/0018-what-a-request-costs.md).
    """

    async def dispatch(  # type: ignore[override] # the middleware awaits it
        self, request: HttpRequest, *_: Any, **__: Any
    ) -> HttpResponse:
        """Call the coroutine for the method of the request."""
        name = str(request.method).lower()
        try:
            if name not in self.http_method_names or not hasattr(self, name):
                raise MethodNotAllowed(name)
            response: HttpResponse = await getattr(self, name)(request)
        except Exception as error:  # noqa: BLE001 - each exception has a response
            return exception_handler(error, {"request": request, "view": self})
        return response
