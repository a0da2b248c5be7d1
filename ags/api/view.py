"""The base of the API's views, and what they answer with."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpRequest, HttpResponse
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.views import APIView

from ags.api.errors import exception_handler

_written = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class Response(HttpResponse):
    """JSON: the one form in which this API answers."""

    def __init__(self, data: Any, status: int = 200) -> None:
        super().__init__(_written(data).encode(), status=status, content_type="application/json")


class GateView(APIView):
    """Answers the methods that it names in `http_method_names`, and no other.

    What DRF would go through before and after each request is settled here once: there is one format, and so
    nothing to negotiate; the views parse strictly, by themselves; a caller is known by what it presents to
    them (docs/decisions/0018-what-a-request-costs.md).
    """

    def dispatch(self, request: HttpRequest, *_: Any, **__: Any) -> HttpResponse:
        """Call the method of the view that answers the request's."""
        name = str(request.method).lower()
        try:
            if name not in self.http_method_names or not hasattr(self, name):
                raise MethodNotAllowed(name)
            answer: HttpResponse = getattr(self, name)(request)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has an answer
            return exception_handler(error, {"request": request, "view": self})
        return answer
