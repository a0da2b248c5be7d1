"""The outermost middleware: each request gets a correlation id, an answer whatever happens, a log line."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, TypeVar

from asgiref.sync import async_to_sync
from django.conf import settings
from django.core.exceptions import RequestDataTooBig, SuspiciousOperation
from django.core.signals import got_request_exception
from django.dispatch import receiver
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from django.http.response import HttpResponseBase
from django.urls import resolve

from ags.api import cors, error_pages, errors
from ags.api.access_log import AccessLogEntry, get_log_entry
from ags.api.request import body, headers
from ags.database.django_connections import drop_dead_connection

STAFF_PATHS = ("/admin/", "/docs/", "/static/")
"""Pages for people, which need Django's other middleware. Everything else is the API."""

PROBE_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked by machines that know this process by its address only."""

# The addresses are few, and what does not resolve is not kept: the cache stays small.
_resolve = lru_cache(maxsize=64)(resolve)


class GatewayMiddleware:
    """The outermost middleware: passes pages of staff on, and answers everything else by itself.

    An API request needs no session, no cookie and no template, so it goes from here to its view at once.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Answer any request, in the calling thread."""
        if not request.path_info.startswith(STAFF_PATHS):
            return async_to_sync(answer)(request)
        entry = _open_log_entry(request)
        entry.route = "/" + request.path_info.split("/", 2)[1] + "/"
        try:
            drop_dead_connection()
            request.get_host()
            response = self._staff_page(request)
        except Exception as error:  # noqa: BLE001 - a crash too is answered in JSON
            response = errors.respond(error, entry)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            response = _refusal(request, response, entry)
            _add_headers(entry, response)
        return _close_log_entry(entry, response)

    def _staff_page(self, request: HttpRequest) -> HttpResponseBase:
        _drop_escaped_cookies(request)
        if body.content_length(request.META) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            # Django would not count files; no form of staff has any.
            raise RequestDataTooBig
        if _is_unfit(request):
            raise SuspiciousOperation
        _read_form(request)
        return self.get_response(request)


async def answer(request: HttpRequest) -> HttpResponse:
    """Answer a request to the API, whatever happens: echo the correlation id, write the log line."""
    entry = _open_log_entry(request)
    try:
        if request.path_info not in PROBE_PATHS:
            request.get_host()
        response = await _call_view(request, entry)
    except asyncio.CancelledError:  # the client has gone, and nobody is left to read a response
        entry.reason = "disconnected"
        entry.write(None)
        raise
    except Exception as error:  # noqa: BLE001 - a crash too is answered in JSON
        response = errors.respond(error, entry)
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        response = _refusal(request, response, entry)
    cors.allow(request, response, entry.tenant)
    _add_headers(entry, response)
    return _close_log_entry(entry, response)


async def _call_view(request: HttpRequest, entry: AccessLogEntry) -> HttpResponse:
    headers.refuse_repeated(request.META)
    match = _resolve(request.path_info)
    entry.route = "/" + match.route
    methods = match.func.view_class.http_method_names  # type: ignore[attr-defined] # a view of the API has them
    preflight = await cors.preflight(request, methods)
    if preflight is not None:
        return preflight
    response: HttpResponse = await match.func(request)
    return response


def _open_log_entry(request: HttpRequest) -> AccessLogEntry:
    entry = AccessLogEntry(headers.correlation_id(request.META), str(request.method)[:16])
    request.log_entry = entry  # type: ignore[attr-defined]
    return entry


_R = TypeVar("_R", bound=HttpResponseBase)


def _close_log_entry(entry: AccessLogEntry, response: _R) -> _R:
    response.headers["x-correlation-id"] = entry.correlation_id
    entry.write(response.status_code)
    return response


def _is_unfit(request: HttpRequest) -> bool:
    """Whether a request to a page of staff holds what Django, or a column of PostgreSQL, cannot."""
    meta = request.META
    return (
        body.media_type(meta.get("CONTENT_TYPE", ""))[1] not in body.UTF8
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


def _refusal(request: HttpRequest, response: HttpResponseBase, entry: AccessLogEntry) -> HttpResponse:
    """Return a refusal in the shape that whoever sent the request expects: JSON, or a page of the admin."""
    refusal = response if isinstance(response, errors.RefusalResponse) else errors.translated(response, entry)
    if error_pages.is_admin_path(request.path_info):
        return error_pages.render(refusal, request, response)
    return refusal


def refuse(meta: dict[str, Any], error: Exception) -> HttpResponse:
    """Answer what did not reach the middleware, and write its log line."""
    method = meta["REQUEST_METHOD"][:16] or None
    entry = AccessLogEntry(headers.correlation_id(meta), method)
    if method is None:  # what came was hardly a request, and nobody knows when it began
        entry.started = None
    refusal = errors.respond(error, entry)
    is_page = error_pages.is_admin_path(meta.get("PATH_INFO", ""))
    response = error_pages.render(refusal, None) if is_page else refusal
    _add_headers(entry, response)
    return _close_log_entry(entry, response)


def _add_headers(entry: AccessLogEntry, response: HttpResponse) -> None:
    """Add the headers of every answer that is not a page or a file; to HEAD, send only those."""
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.status_code != HTTPStatus.NOT_MODIFIED:
        response.headers["Content-Length"] = str(len(response.content))
        if entry.method == "HEAD":
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
    get_log_entry(request).crash = sys.exception()
