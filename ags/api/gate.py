"""The outermost middleware: each request gets a correlation id, an answer whatever happens, a log line."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import resolve

from ags.api import errors, headers
from ags.api.record import Record
from ags.operations.database import drop_dead_connection

STAFF_PATHS = ("/admin/", "/docs/", "/static/")
"""Pages for people, which need Django's other middleware. Everything else is the API."""

PROBES = frozenset({"/healthz", "/readyz"})
"""Asked by machines that know this process by its address only."""


class Gate:
    """Answers the API by itself and passes the pages of staff on.

    An API request needs no session, no cookie and no template, so it goes from here to its view at once.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.staff_pages = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer, echo the correlation id, write the log line."""
        record = Record(headers.correlation_id(request.META), str(request.method)[:16])
        request.record = record  # type: ignore[attr-defined]
        if request.path_info.startswith(STAFF_PATHS):
            response = self._staff_page(request, record)
            record.route = "/" + request.path_info.split("/", 2)[1] + "/"
        else:
            response = answer(request, record)
            response.headers.setdefault("Cache-Control", "no-store")
            response.headers.setdefault("X-Content-Type-Options", "nosniff")
            if response.status_code != HTTPStatus.NOT_MODIFIED:
                response.headers["Content-Length"] = str(len(response.content))
                if request.method == "HEAD":
                    response.content = b""
        response.headers["x-correlation-id"] = record.correlation_id
        record.write(response.status_code)
        return response

    def _staff_page(self, request: HttpRequest, record: Record) -> HttpResponseBase:
        if "\x00" in request.path_info or "%00" in request.META.get("QUERY_STRING", ""):
            # The admin looks up what an address holds, and no column of PostgreSQL can hold NUL.
            return errors.respond(SuspiciousOperation(), record)
        return self.staff_pages(request)


def answer(request: HttpRequest, record: Record) -> HttpResponse:
    """Call the view of an API path; turn whatever it or the framework raises into JSON."""
    try:
        if request.path_info not in PROBES:
            request.get_host()
        headers.refuse_repeated(request.META)
        match = resolve(request.path_info)
        record.route = "/" + match.route
        drop_dead_connection()
        response: HttpResponse = match.func(request, *match.args, **match.kwargs)
        if not getattr(response, "is_rendered", True):
            response.render()  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - a crash too is answered in JSON
        response = errors.respond(error, record)
    return response
