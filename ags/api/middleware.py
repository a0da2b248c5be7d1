"""The outermost middleware: correlation ID, error responses and access log of every request."""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
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

from ags.api import cors, error_pages, errors, failure_limit
from ags.api.access_log import PROBE_PATHS, AccessLogEntry, get_log_entry
from ags.api.client_ip import get_client_address
from ags.api.refusals import submit_refusal
from ags.api.request import body, headers
from ags.api.views import explanation
from ags.database.django_connections import close_broken_connection
from ags.database.threads import QueueTimeout, run_in_event_loop
from ags.limits.password_hasher import RETRY_AFTER, TooManyPasswords
from ags.operations.key_use import count_key_use
from providers.contract import log_context

STAFF_PATHS = ("/admin/", "/docs/", "/static/", explanation.PATH)
"""Paths that need Django's other middleware. All other paths are the API."""

# Only existing paths are cached, and there are few: exceptions are not cached.
_resolve = lru_cache(maxsize=64)(resolve)


class GatewayMiddleware:
    """Calls the views of API requests directly: they need no sessions, cookies or templates."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not request.path_info.startswith(STAFF_PATHS):
            return async_to_sync(handle_api_request)(request)
        entry = _open_log_entry(request)
        entry.route = "/" + request.path_info.split("/", 2)[1] + "/"
        try:
            close_broken_connection()
            request.get_host()
            response = self._handle_staff_page(request)
        except Exception as error:  # noqa: BLE001 - each exception has a response
            response = errors.error_response(error, entry)
        if response.status_code >= HTTPStatus.BAD_REQUEST:
            response = _standardize_error(request, response, entry)
            _add_headers(entry, response)
            if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
                with suppress(QueueTimeout):
                    run_in_event_loop(_submit_refusal, entry, response)
        elif request.path_info.startswith(explanation.PATH):  # also the redirect to HTTPS
            response.headers.setdefault("Cache-Control", "no-store")
        return _close_log_entry(entry, response)

    @staticmethod
    def process_exception(request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Respond to a limit that a staff page has reached; Django would treat its exception as a crash."""
        if isinstance(exception, TooManyPasswords):
            exception = errors.ApiError(errors.TOO_MANY_PASSWORDS, retry_after=RETRY_AFTER)
        if isinstance(exception, errors.ApiError):
            return errors.error_response(exception, get_log_entry(request))
        return None

    def _handle_staff_page(self, request: HttpRequest) -> HttpResponseBase:
        _remove_escaped_cookies(request)
        meta = request.META
        if body.parse_content_length(meta) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE:
            # Django does not count uploaded files; no form of the admin has any.
            raise RequestDataTooBig
        _, charset = body.parse_content_type(meta.get("CONTENT_TYPE", ""))
        has_nul = "\x00" in request.path_info or "%00" in meta.get("QUERY_STRING", "")
        if charset not in body.UTF8 or has_nul:  # Django cannot decode others; PostgreSQL cannot store NUL
            raise SuspiciousOperation
        _parse_form(request)
        return self.get_response(request)


async def handle_api_request(request: HttpRequest) -> HttpResponse:
    """Raises only CancelledError."""
    entry = _open_log_entry(request)
    log_context.set(entry)
    try:
        if request.path_info not in PROBE_PATHS:  # these may have any Host header
            request.get_host()
        response = await _call_view(request, entry)
    except asyncio.CancelledError:  # the client has disconnected
        entry.reason = "disconnected"
        entry.write(None)
        raise
    except Exception as error:  # noqa: BLE001 - each exception has a response
        response = errors.error_response(error, entry)
    if response.status_code >= HTTPStatus.BAD_REQUEST:
        response = _standardize_error(request, response, entry)
        if response.status_code in failure_limit.FAILURES:
            try:
                await failure_limit.count_failure(request, entry)
            except asyncio.CancelledError:  # while it waits for Redis
                entry.write(None)
                raise
        submit_refusal(entry, response)
    if entry.key_id is not None:
        count_key_use(entry.tenant or "", entry.key_id, response.status_code, entry.token_age)
    cors.add_cors_headers(request, response, entry.tenant)
    _add_headers(entry, response)
    return _close_log_entry(entry, response)


async def _submit_refusal(entry: AccessLogEntry, response: HttpResponse) -> None:
    """The queue belongs to the event loop, and staff pages run in threads."""
    submit_refusal(entry, response)


async def _call_view(request: HttpRequest, entry: AccessLogEntry) -> HttpResponse:
    headers.reject_repeated_headers(request.META)
    match = request.resolver_match = _resolve(request.path_info)
    entry.route = "/" + match.route
    methods = match.func.view_class.http_method_names  # type: ignore[attr-defined] # every API view has them
    preflight = await cors.respond_to_preflight(request, methods)
    if preflight is not None:
        return preflight
    if failure_limit.blocks.ends and request.path_info not in PROBE_PATHS:
        failure_limit.raise_if_blocked(request, entry)
    return await match.func(request)


def _open_log_entry(request: HttpRequest) -> AccessLogEntry:
    meta = request.META
    entry = AccessLogEntry(
        headers.read_correlation_id(meta), str(request.method)[:16], get_client_address(meta)
    )
    request.log_entry = entry  # type: ignore[attr-defined]
    return entry


_R = TypeVar("_R", bound=HttpResponseBase)


def _close_log_entry(entry: AccessLogEntry, response: _R) -> _R:
    response.headers["x-correlation-id"] = entry.correlation_id
    entry.write(response.status_code)
    return response


def _parse_form(request: HttpRequest) -> None:
    """Parse the form in this middleware, so that its errors get the responses of this middleware."""
    try:
        request.POST  # noqa: B018
    except (SuspiciousOperation, MultiPartParserError, OSError):
        raise
    except Exception:  # noqa: BLE001 - Django's parser raises for some parameters of a part
        raise SuspiciousOperation from None


def _standardize_error(
    request: HttpRequest, response: HttpResponseBase, entry: AccessLogEntry
) -> HttpResponse:
    error = response
    if not isinstance(error, errors.ErrorResponse):
        error = errors.convert_error_response(response, entry)
    return _render_error(error, request.path_info, request, response)


def _render_error(
    error: errors.ErrorResponse,
    path: str,
    request: HttpRequest | None,
    original: HttpResponseBase | None = None,
) -> HttpResponse:
    """Return the response, or the page that replaces it."""
    if error_pages.is_admin_path(path):
        return error_pages.render_error_page(error, request, original)
    return explanation.render_error_page(error) if path.startswith(explanation.PATH) else error


def respond_outside_middleware(meta: dict[str, Any], exception: Exception) -> HttpResponse:
    method = meta["REQUEST_METHOD"][:16] or None
    entry = AccessLogEntry(headers.read_correlation_id(meta), method, get_client_address(meta))
    if method is None:  # the request could not be parsed, so its start is unknown
        entry.started = None
    error = errors.error_response(exception, entry)
    response = _render_error(error, meta.get("PATH_INFO", ""), None)
    submit_refusal(entry, response)
    _add_headers(entry, response)
    return _close_log_entry(entry, response)


def _add_headers(entry: AccessLogEntry, response: HttpResponse) -> None:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.status_code != HTTPStatus.NOT_MODIFIED:
        response.headers["Content-Length"] = str(len(response.content))
        if entry.method == "HEAD":
            response.content = b""


def _remove_escaped_cookies(request: HttpRequest) -> None:
    """Python before 3.11.10 takes quadratic time to unescape them (CVE-2024-7592); AGS sets none."""
    cookies = request.META.get("HTTP_COOKIE", "")
    if "\\" in cookies:
        request.META["HTTP_COOKIE"] = ";".join(cookie for cookie in cookies.split(";") if "\\" not in cookie)


@receiver(got_request_exception)
def _store_exception(request: HttpRequest, **_: Any) -> None:
    """Store the exception of a staff page: `_standardize_error` replaces Django's error page."""
    get_log_entry(request).exception = sys.exception()
