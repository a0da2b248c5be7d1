"""The outermost middleware: each request gets a correlation id, an answer whatever happens, a log line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.urls import resolve

from ags.api import cors, error_pages, errors, headers, parsing
from ags.api.record import Record, record_of
from ags.operations.database import drop_dead_connection

STAFF_PATHS = ("/admin/", "/docs/", "/static/")
"""Pages for people, which need Django's other middleware. Everything else is the API."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines that know this process by its address only."""

# The addresses are few, and what does not resolve is not kept: the cache stays small.
_resolved = lru_cache(maxsize=64)(resolve)


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
        is_staff_page = request.path_info.startswith(STAFF_PATHS)
        try:
            drop_dead_connection()
            if request.path_info not in PROBES:
                request.get_host()
            response = self._staff_page(request, record) if is_staff_page else answer(request, record)
        except Exception as error:  # noqa: BLE001 - a crash too is answered in JSON
            response = errors.respond(error, record)
        refused = response.status_code >= HTTPStatus.BAD_REQUEST
        if refused:
            response = _refusal(request, response, record)
        if not is_staff_page:
            cors.allow(request, response, record.tenant)
        if refused or not is_staff_page:
            _finish(record, cast("HttpResponse", response))
        response.headers["x-correlation-id"] = record.correlation_id
        record.write(response.status_code)
        return response

    def _staff_page(self, request: HttpRequest, record: Record) -> HttpResponseBase:
        record.route = "/" + request.path_info.split("/", 2)[1] + "/"
        _drop_escaped_cookies(request)
        if parsing.content_length(request.META) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            # Django would not count files; no form of staff has any.
            raise RequestDataTooBig
        if _is_unfit(request):
            raise SuspiciousOperation
        _read_form(request)
        return self.staff_pages(request)


def _is_unfit(request: HttpRequest) -> bool:
    """Whether a request to a page of staff holds what Django, or a column of PostgreSQL, cannot."""
    meta = request.META
    return (
        parsing.media_type(meta.get("CONTENT_TYPE", ""))[1] not in parsing.UTF8
        or "\x00" in request.path_info
        or "%00" in meta.get("QUERY_STRING", "")
    )


def _read_form(request: HttpRequest) -> None:
    """Read the form here, so that what is wrong with it is answered here."""
    try:
        request.POST  # noqa: B018
    except (SuspiciousOperation, MultiPartParserError, OSError):
        raise
    except Exception:  # noqa: BLE001 - Django's parser raises on some parameters of a part
        raise SuspiciousOperation from None


def _refusal(request: HttpRequest, response: HttpResponseBase, record: Record) -> HttpResponse:
    """Return a refusal in the shape that whoever sent the request expects: JSON, or a page of the admin."""
    refusal = (
        response if isinstance(response, errors.RefusalResponse) else errors.translated(response, record)
    )
    if error_pages.is_admin_path(request.path_info):
        return error_pages.render(refusal, request, response)
    return refusal


def refuse(environ: dict[str, Any], error: Exception) -> HttpResponse:
    """Answer what the gate never got to see, and write its log line."""
    method = environ["REQUEST_METHOD"][:16] or None
    record = Record(headers.correlation_id(environ), method)
    if method is None:  # what came was hardly a request, and nobody knows when it began
        record.started = None
    refusal = errors.respond(error, record)
    is_page = error_pages.is_admin_path(environ.get("PATH_INFO", ""))
    response = error_pages.render(refusal, None) if is_page else refusal
    _finish(record, response)
    response.headers["x-correlation-id"] = record.correlation_id
    record.write(response.status_code)
    return response


def answer(request: HttpRequest, record: Record) -> HttpResponse:
    """Call the view of an API path. What it or the framework raises, the gate turns into JSON."""
    headers.refuse_repeated(request.META)
    match = _resolved(request.path_info)
    record.route = "/" + match.route
    view_class = match.func.view_class  # type: ignore[attr-defined] # every view of the API has one
    question = cors.preflight(request, ", ".join(view_class.http_method_names).upper())
    if question is not None:
        return question
    # No address of the API has a part that varies.
    view = view_class(**match.func.view_initkwargs)  # type: ignore[attr-defined]
    view.setup(request)
    response: HttpResponse = view.dispatch(request)
    return response


def _finish(record: Record, response: HttpResponse) -> None:
    """Add the headers of every answer that is not a page or a file; to HEAD, send only those."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.status_code != HTTPStatus.NOT_MODIFIED:
        response.headers["Content-Length"] = str(len(response.content))
        if record.method == "HEAD":
            response.content = b""


def _drop_escaped_cookies(request: HttpRequest) -> None:
    """Leave out cookies with a backslash, which none of ours has.

    Before 3.11.10, Python takes quadratic time to undo the escapes (CVE-2024-7592).
    """
    cookies = request.META.get("HTTP_COOKIE", "")
    if "\\" in cookies:
        request.META["HTTP_COOKIE"] = ";".join(one for one in cookies.split(";") if "\\" not in one)


@receiver(got_request_exception)
def _note_crash(request: HttpRequest, **_: Any) -> None:
    """Keep what a page of staff raised: Django answers it with a page that tells too little, or too much."""
    record_of(request).crash = sys.exception()
