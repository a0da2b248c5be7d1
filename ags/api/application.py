"""The application as the server calls it: to the gate at once, or by way of Django to the pages of staff."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

from ags.api.errors import REQUEST_MALFORMED, ApiError
from ags.api.gate import STAFF_PATHS, Gate, refuse


class Request(WSGIRequest):
    """A request whose Content-Type Django reads as a media type without parameters.

    Django's parser of parameters raises on some of them. It also has Python look up a charset, and Python
    keeps each name that it does not find. Where a parameter matters, `ags.api.parsing` reads it.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        content_type: str = environ.get("CONTENT_TYPE", "")
        environ["CONTENT_TYPE"] = content_type.partition(";")[0]
        try:
            super().__init__(environ)
        except Exception as error:  # noqa: BLE001 - it comes from what the caller sent
            raise ApiError(REQUEST_MALFORMED, why=type(error).__name__) from None
        environ["CONTENT_TYPE"] = content_type


class Application(WSGIHandler):
    """Django's handler, which a request of the API does not go through.

    What Django does around its middleware serves pages: signals at both ends of a request, at which it looks
    at every connection and cache, and what templates need to write addresses
    (docs/decisions/0018-what-a-request-costs.md).
    """

    request_class = Request

    def __init__(self) -> None:
        super().__init__()
        self._gate = Gate(self.get_response)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Return what the server sends, as PEP 3333 has it."""
        failed = None
        try:
            request = Request(environ)
            if request.path_info.startswith(STAFF_PATHS):
                return super().__call__(environ, start_response)  # which makes a request of its own
            response: Any = self._gate(request)
        except Exception as error:  # noqa: BLE001 - what is raised outside the gate is answered in JSON too
            response, failed = refuse(environ, error), sys.exc_info()
        status = f"{response.status_code} {response.reason_phrase}"
        start_response(status, list(response.items()), failed)
        return [response.content]  # the API streams nothing
