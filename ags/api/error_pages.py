"""HTML error pages for `/admin/`."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from csp.utils import build_policy
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.encoding import escape_uri_path

from ags.api import errors
from ags.api.access_log import get_log_entry

MAX_HEADER_LENGTH = 200
"""Maximum number of characters of a header that a page shows."""

PROXY_HINT = (
    "A proxy in front of AGS must forward the Host header of the browser unchanged. AGS_ALLOWED_HOSTS must "
    "contain that host."
)

BACK_TO_START = "Back to the start page"


@dataclass(frozen=True, slots=True)
class Page:
    """The content of an error page.

    `{host}`, `{origin}` and `{received_at}` come from the request, `{wait}` from the header Retry-After.
    `link_target`: "same" for the URL of the request, otherwise the name of an admin URL.
    """

    title: str
    sentences: tuple[str, ...]
    link_text: str = BACK_TO_START
    link_target: str = "index"


NOTHING_SAVED = "Nothing was saved."
RELOAD = ("Reload the page", "same")

PAGES: Mapping[errors.Error, Page] = {
    errors.REQUEST_MALFORMED: Page(
        "Bad request", ("The URL or the form contains an unsupported value, such as an unknown filter.",)
    ),
    errors.HOST_INVALID: Page(
        "This host is not allowed",
        ("The request is for the host “{host}”, which AGS_ALLOWED_HOSTS does not contain.", PROXY_HINT),
        *RELOAD,
    ),
    errors.NOT_PERMITTED: Page(
        "You do not have permission",
        ("Your account does not have permission to do this. A superuser can grant it.",),
    ),
    errors.FORM_EXPIRED: Page(
        "The form has expired", (f"{NOTHING_SAVED} Reload the page and submit the form again.",), *RELOAD
    ),
    errors.ORIGIN_MISMATCH: Page(
        "The form comes from another origin",
        (
            f"The form was sent from “{{origin}}” and received at “{{received_at}}”. {NOTHING_SAVED}",
            f"{PROXY_HINT} The proxy must send X-Forwarded-Proto, and AGS_TRUSTED_PROXIES must count it.",
        ),
        *RELOAD,
    ),
    errors.NOT_FOUND: Page(
        "Page not found", ("There is no page at this URL, or you do not have permission to view it.",)
    ),
    errors.METHOD_NOT_ALLOWED: Page(
        "Method not allowed",
        ("This URL does not support the method of the request. Use the buttons of the pages.",),
    ),
    errors.BODY_TOO_LARGE: Page(
        "The form is too large", (f"The limits are 2.5 MiB and 1,000 fields. {NOTHING_SAVED}",), *RELOAD
    ),
    errors.TOO_MANY_LOGINS: Page(
        "Too many failed logins",
        (
            "Try again in {wait}. Until then, even the correct password is refused.",
            "The attempts of others do not lock a browser with which you have logged in before.",
        ),
        "Back to the login",
        "login",
    ),
    errors.TOO_MANY_PASSWORDS: Page(
        "Too many logins at the same time",
        (
            f"AGS verifies one password at a time, and others are waiting. {NOTHING_SAVED}",
            "Try again in {wait}.",
        ),
        *RELOAD,
    ),
    errors.INTERNAL_ERROR: Page(
        "Something went wrong",
        ("The error is logged. If you were saving something, check whether it was saved.",),
    ),
    errors.UNAVAILABLE: Page(
        "AGS is unavailable", ("AGS cannot use its database at the moment. Try again later.",), *RELOAD
    ),
}

HEADERS = {
    "X-Frame-Options": settings.X_FRAME_OPTIONS,
    "Referrer-Policy": settings.SECURE_REFERRER_POLICY,
    "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY,
}
"""Django's middleware sets these on other pages; an error may be raised outside it."""


def is_admin_path(path: str) -> bool:
    return (path == "/admin" or path.startswith("/admin/")) and settings.AGS_ADMIN != "off"


def render_error_page(
    error: errors.ErrorResponse, request: HttpRequest | None, original: HttpResponseBase | None = None
) -> HttpResponse:
    """Keep the cookies of `original`. `request` is None if it could not be constructed."""
    error_headers = {name: error[name] for name in ("Allow", "Retry-After") if name in error}
    policy = {"Content-Security-Policy": build_policy()}
    html = _render_html(error, request)
    response = HttpResponse(html, status=error.status_code, headers=HEADERS | policy | error_headers)
    if original is not None:
        response.cookies = original.cookies
    if request is not None:  # the CSRF middleware has not seen this page, whose log-out form needs a token
        CsrfViewMiddleware(lambda _: response).process_response(request, response)
    return response


def _render_html(error: errors.ErrorResponse, request: HttpRequest | None) -> str:
    # For 500 and 503 errors, the database may be unavailable, and with it the session of the user.
    if request is not None and error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        try:
            return _render_template(error, request, request)
        except Exception as exception:  # noqa: BLE001 - render the page without the user instead
            errors.log_crash(exception, get_log_entry(request))
    return _render_template(error, request, _anonymous_request())


def _render_template(
    error: errors.ErrorResponse, request: HttpRequest | None, context_request: HttpRequest
) -> str:
    page = PAGES.get(error.error) or Page(error.reason_phrase, (error.error.message,))
    if not hasattr(context_request, "user"):  # the error was raised before AuthenticationMiddleware
        context_request = _anonymous_request()
    details = {"wait": _format_wait(int(error.headers.get("Retry-After", 0)))}
    if request is not None:
        details |= _request_details(request)
    link_text, link_url = _link(page, request)
    context = {
        **admin.site.each_context(context_request),
        "messages": (),  # the next page shows them: here, no middleware would mark them as shown
        "title": page.title,
        "sentences": [sentence.format_map(details) for sentence in page.sentences],
        "link_text": link_text,
        "link_url": link_url,
        "correlation_id": error.correlation_id,
    }
    context["base_template"] = (
        "admin/base_site.html" if context["has_permission"] else "unfold/layouts/unauthenticated.html"
    )
    return render_to_string("ags/error.html", context, context_request)


def _link(page: Page, request: HttpRequest | None) -> tuple[str, str]:
    if request is None:
        return page.link_text, reverse("admin:index")
    if page.link_target == "same":
        if request.path == reverse("admin:logout"):  # does not support GET
            return BACK_TO_START, reverse("admin:index")
        return page.link_text, request.get_full_path()
    has_query = request.method == "GET" and request.META.get("QUERY_STRING")
    if has_query and page is PAGES[errors.REQUEST_MALFORMED]:
        return "Open the page without its query", escape_uri_path(request.path)
    return page.link_text, reverse(f"admin:{page.link_target}")


def _anonymous_request() -> HttpRequest:
    request = HttpRequest()
    request.user = AnonymousUser()
    request.META["SCRIPT_NAME"] = ""
    return request


def _request_details(request: HttpRequest) -> dict[str, Any]:
    """Return the placeholders of `Page.sentences`: input of the browser, which the template escapes."""
    scheme = "https" if request.is_secure() else "http"
    host = request.META.get("HTTP_HOST", "")
    with suppress(DisallowedHost):
        host = request.get_host()
    details = {"host": host, "received_at": f"{scheme}://{host}", "origin": _origin(request.META)}
    return {name: value[:MAX_HEADER_LENGTH] for name, value in details.items()}


def _format_wait(seconds: int) -> str:
    number, unit = (seconds, "second") if seconds < 60 else (-(-seconds // 60), "minute")
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _origin(meta: Mapping[str, Any]) -> str:
    if "HTTP_ORIGIN" in meta:
        return str(meta["HTTP_ORIGIN"])
    try:
        referer = urlsplit(meta.get("HTTP_REFERER", ""))
    except ValueError:
        return "unknown"
    return f"{referer.scheme}://{referer.netloc}" if referer.netloc else "unknown"
