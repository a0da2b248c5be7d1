"""The application as the server calls it: to the gate at once, or by way of Django to the pages of staff."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.handlers.wsgi import WSGIHandler, WSGIRequest

from ags.api.gate import STAFF_PATHS, Gate

CONTENT_TYPE_MAX_LENGTH = 255
"""Characters of a Content-Type that is read. Python takes quadratic time to find its parameters."""


class Application(WSGIHandler):
    """Django's handler, which a request of the API does not go through.

    What Django does around its middleware serves pages: signals at both ends of a request, at which it looks
    at every connection and cache, and what templates need to write addresses
    (docs/decisions/0018-what-a-request-costs.md).
    """

    def __init__(self) -> None:
        super().__init__()
        self._gate = Gate(self.get_response)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Return what the server sends, as PEP 3333 has it."""
        if len(environ.get("CONTENT_TYPE", "")) > CONTENT_TYPE_MAX_LENGTH:
            environ["CONTENT_TYPE"] = ""
        if environ.get("PATH_INFO", "").startswith(STAFF_PATHS):
            return super().__call__(environ, start_response)
        response = self._gate(WSGIRequest(environ))
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
        return [response.content]  # type: ignore[attr-defined] # the API streams nothing
