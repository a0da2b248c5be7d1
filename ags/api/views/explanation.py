"""The page of an explanation link: anybody who has the link reads it, without an account."""

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe

from ags.api import errors
from ags.api.access_log import get_log_entry
from ags.database.threads import run_in_event_loop
from ags.explanations.links import open_link, read_token
from ags.limits import EXPLANATION_OPENINGS

PATH = "/explanations/"

MAX_OPENINGS = 30
"""Requests for one link in a minute: each may store an event."""

ANY_TENANT = ""
"""Takes the place of the tenant in the key of the limiter, which counts before the database is queried."""

NOT_OPEN = (
    "The link is incomplete, has expired or was revoked, or the request is no longer stored.",
    "Ask the company that sent you the link for a new one.",
)

MESSAGES: Mapping[errors.Error, tuple[str, ...]] = {
    errors.NOT_FOUND: NOT_OPEN,
    errors.TOO_MANY_OPENINGS: (
        "The link was opened too often in a short time. Try again in {wait} seconds.",
    ),
}
"""The sentences of a page that explains nothing; otherwise the message of the error."""


@csrf_exempt
@require_safe
def open_explanation(request: HttpRequest, token: str) -> HttpResponse:
    """Raises Http404 and ApiError (429). A HEAD is not an opening."""
    entry = get_log_entry(request)
    key = read_token(token)
    if key is None:
        raise Http404
    remaining = run_in_event_loop(EXPLANATION_OPENINGS.hit, MAX_OPENINGS, ANY_TENANT, key)
    if remaining:
        EXPLANATION_OPENINGS.refusals.increment()
        raise errors.ApiError(errors.TOO_MANY_OPENINGS, retry_after=math.ceil(remaining))
    opened = open_link(key, entry if request.method == "GET" else None)
    if opened is None:
        raise Http404
    link, explanation = opened
    entry.tenant = link.tenant_id
    return _render(
        "Why this request was refused" if explanation.fault else "What happened to this request",
        {"link": link, "explanation": explanation},
    )


def render_error_page(error: errors.ErrorResponse) -> HttpResponse:
    sentences = MESSAGES.get(error.error, (error.message,))
    response = _render(
        "This link cannot be opened",
        {
            "sentences": [sentence.format(wait=error.headers.get("Retry-After")) for sentence in sentences],
            "correlation_id": error.correlation_id,
        },
        error.status_code,
    )
    for name in ("Allow", "Retry-After"):
        if name in error:
            response[name] = error[name]
    return response


def _render(title: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    style, policy = _style()
    html = render_to_string("ags_explanations/page.html", {"title": title, "style": style, **context})
    headers = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "X-Robots-Tag": "noindex, nofollow",
    }
    return HttpResponse(html, status=status, headers=headers)


@cache
def _style() -> tuple[str, str]:
    """Return the style sheet, and a Content-Security-Policy that allows it and nothing else."""
    style = render_to_string("ags_explanations/page.css")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'"
    return style, f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
