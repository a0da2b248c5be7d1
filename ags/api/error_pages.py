"""Errors under `/admin/`, as pages in the frame of the admin: what happened, in words, and a way back."""

from __future__ import annotations

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

MAX_CLAIM_LENGTH = 200
"""Characters of a header that a page repeats."""

PROXY = (
    "A proxy in front of AGS must pass on the Host header as the browser sent it. AGS_ALLOWED_HOSTS must "
    "list that host."
)


BACK_TO_START = "Back to the start page"


@dataclass(frozen=True, slots=True)
class Page:
    """What a page says of an error; `{host}`, `{origin}` and `{seen}` are what the request claims.

    `back` is the text of the link, `address` where it leads: "same" to the same address, otherwise the name
    of a page of the admin.
    """

    title: str
    sentences: tuple[str, ...]
    back: str = BACK_TO_START
    address: str = "index"


NOTHING_SAVED = "Nothing was saved."
RELOAD = ("Load the page again", "same")

PAGES: Mapping[errors.Error, Page] = {
    errors.REQUEST_MALFORMED: Page(
        "Bad request",
        ("The address or the form holds what this page does not offer, such as an unknown filter.",),
    ),
    errors.HOST_INVALID: Page(
        "This host is not allowed",
        ("AGS was asked for the host “{host}”. AGS_ALLOWED_HOSTS does not list it.", PROXY),
        *RELOAD,
    ),
    errors.NOT_PERMITTED: Page(
        "You do not have permission",
        ("Your account may not do this. A superuser decides what your account may do.",),
    ),
    errors.FORM_EXPIRED: Page(
        "The form has expired",
        (f"{NOTHING_SAVED} Load the page of the form again, and send the form once more.",),
        *RELOAD,
    ),
    errors.ORIGIN_MISMATCH: Page(
        "The form comes from another address",
        (
            f"Your browser sent the form from “{{origin}}”. AGS received it at “{{seen}}”. {NOTHING_SAVED}",
            f"{PROXY} AGS_TRUSTED_PROXIES must count the proxy, which sends X-Forwarded-Proto.",
        ),
        *RELOAD,
    ),
    errors.NOT_FOUND: Page(
        "Page not found", ("There is nothing at this address, or nothing that you may see.",)
    ),
    errors.METHOD_NOT_ALLOWED: Page(
        "Method not allowed", ("This address cannot be used in this way. Use the buttons of the pages.",)
    ),
    errors.BODY_TOO_LARGE: Page(
        "The form is too large", (f"A form has at most 2.5 MiB and 1,000 fields. {NOTHING_SAVED}",), *RELOAD
    ),
    errors.TOO_MANY_LOGINS: Page(
        "Too many failed logins",
        (
            f"You cannot log in for {errors.LOCKED_OUT // 60} minutes after your last attempt, even with the "
            "right password.",
        ),
        "Back to the login",
        "login",
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
"""Set by the middleware on other pages; an error may come from outside it."""


def is_admin_path(path: str) -> bool:
    """Whether an error at this path is a page."""
    return (path == "/admin" or path.startswith("/admin/")) and settings.AGS_ADMIN != "off"


def render(
    refusal: errors.RefusalResponse, request: HttpRequest | None, original: HttpResponseBase | None = None
) -> HttpResponse:
    """Return the page for that refusal; `request` is None where it could not be constructed.

    Of the original answer, which it replaces, the page keeps the cookies.
    """
    refusal_headers = {name: refusal[name] for name in ("Allow", "Retry-After") if name in refusal}
    policy = {"Content-Security-Policy": build_policy()}
    html = _html(refusal, request)
    response = HttpResponse(html, status=refusal.status_code, headers=HEADERS | policy | refusal_headers)
    if original is not None:
        response.cookies = original.cookies
    if request is not None:  # the middleware saw the original answer, not the token of the log-out form
        CsrfViewMiddleware(lambda _: response).process_response(request, response)
    return response


def _html(refusal: errors.RefusalResponse, request: HttpRequest | None) -> str:
    # With 500 and 503, the database may be what does not work.
    if request is not None and refusal.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        try:
            return _in_frame(refusal, request, request)
        except Exception as error:  # noqa: BLE001 - a page comes in any case
            errors.log_crash(error, get_log_entry(request))
    return _in_frame(refusal, request, _nobody())


def _in_frame(refusal: errors.RefusalResponse, request: HttpRequest | None, frame: HttpRequest) -> str:
    """Render the page, in the frame that whoever sent the request `frame` sees."""
    page = PAGES.get(refusal.error) or Page(refusal.reason_phrase, (refusal.error.message,))
    if not hasattr(frame, "user"):  # it was refused before anybody asked who sent it
        frame = _nobody()
    claims = {} if request is None else _claims(request)
    back, address = _way_back(page, request)
    context = {
        **admin.site.each_context(frame),
        "messages": (),  # they wait for the next page: nothing would note that they were shown here
        "title": page.title,
        "sentences": [sentence.format_map(claims) for sentence in page.sentences],
        "back": back,
        "address": address,
        "correlation_id": refusal.correlation_id,
    }
    context["frame"] = (
        "admin/base_site.html" if context["has_permission"] else "unfold/layouts/unauthenticated.html"
    )
    return render_to_string("ags/error.html", context, frame)


def _way_back(page: Page, request: HttpRequest | None) -> tuple[str, str]:
    """Return the text of the link, and where it leads."""
    if request is None:
        return page.back, reverse("admin:index")
    if page.address == "same":
        if request.path == reverse("admin:logout"):  # it answers no GET
            return BACK_TO_START, reverse("admin:index")
        return page.back, request.get_full_path()
    if (
        page is PAGES[errors.REQUEST_MALFORMED]
        and request.META.get("QUERY_STRING")
        and request.method == "GET"
    ):
        return "Show the page without its query", escape_uri_path(request.path)
    return page.back, reverse(f"admin:{page.address}")


def _nobody() -> HttpRequest:
    request = HttpRequest()
    request.user = AnonymousUser()
    request.META["SCRIPT_NAME"] = ""
    return request


def _claims(request: HttpRequest) -> dict[str, Any]:
    """Return what the request says of where it comes from and goes to; the template escapes it."""
    scheme = "https" if request.is_secure() else "http"
    host = request.META.get("HTTP_HOST", "")
    with suppress(DisallowedHost):
        host = request.get_host()
    claims = {"host": host, "seen": f"{scheme}://{host}", "origin": _origin(request.META)}
    return {name: value[:MAX_CLAIM_LENGTH] for name, value in claims.items()}


def _origin(meta: Mapping[str, Any]) -> str:
    if "HTTP_ORIGIN" in meta:
        return str(meta["HTTP_ORIGIN"])
    try:
        referer = urlsplit(meta.get("HTTP_REFERER", ""))
    except ValueError:
        return "unknown"
    return f"{referer.scheme}://{referer.netloc}" if referer.netloc else "unknown"
