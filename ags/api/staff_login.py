"""The login of staff, and its limits."""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse

from ags.api import errors
from ags.api.access_log import get_log_entry
from ags.api.client_ip import client_block, get_client_address
from ags.api.known_browser import find_known_browser, remember_browser
from ags.database.threads import run_in_event_loop
from ags.limits import STAFF_ADDRESS_FAILURES, STAFF_BROWSER_FAILURES, STAFF_LOCKOUTS, STAFF_USERNAME_FAILURES
from ags.limits.limiter import Hit, Limiter

MAX_ADDRESS_FAILURES = 50
MAX_USERNAME_FAILURES = 100
MAX_BROWSER_FAILURES = 5

STAFF = ""
"""Takes the place of the tenant in the keys of limiters."""

Count = tuple[Limiter, int, str]
"""A limiter, its maximum, and what is counted."""


class LimitBackend:
    """An authentication backend that only counts: after that of django-axes, and before Django's.

    So a password that django-axes refuses does not count, and any other counts before it is verified.
    """

    @staticmethod
    def authenticate(request: HttpRequest, username: str, **_: Any) -> None:
        """Raises ApiError (429), and QueueTimeout."""
        hits = run_in_event_loop(_count_failure, _counts(request, username))
        request.login_hits = hits  # type: ignore[attr-defined]


def log_in(request: HttpRequest) -> HttpResponse:
    """The login page of the admin. After a login, the browser is known."""
    try:
        response = admin.site.login(request)
    except Exception:  # too many passwords at the same time, or no database
        _take_back(request)
        raise
    if response.status_code == HTTPStatus.FOUND and hasattr(request, "login_hits"):
        _take_back(request)
        remember_browser(response, cast(User, request.user))
    return response


def is_known_browser(request: HttpRequest, credentials: Mapping[str, Any]) -> bool:
    """For the setting AXES_WHITELIST_CALLABLE: others cannot lock out a known browser."""
    return _known_browser(request, credentials["username"]) != ""


def respond_to_lockout(request: HttpRequest, *_: Any) -> HttpResponse:
    """For the setting AXES_LOCKOUT_CALLABLE."""
    STAFF_LOCKOUTS.refusals.increment()
    return errors.error_response(errors.ApiError(errors.TOO_MANY_LOGINS), get_log_entry(request))


def _counts(request: HttpRequest, username: str) -> list[Count]:
    browser = _known_browser(request, username)
    if browser:
        return [(STAFF_BROWSER_FAILURES, MAX_BROWSER_FAILURES, browser)]
    counts = [(STAFF_USERNAME_FAILURES, MAX_USERNAME_FAILURES, username)]
    address = get_client_address(request.META)
    if address is not None:
        # First, so that a flood from one address does not use the limit of a username.
        counts.insert(0, (STAFF_ADDRESS_FAILURES, MAX_ADDRESS_FAILURES, client_block(address)))
    return counts


def _known_browser(request: HttpRequest, username: str) -> str:
    """Remember the result in the request, which has one username."""
    browser: str | None = getattr(request, "known_browser", None)
    if browser is None:
        browser = request.known_browser = find_known_browser(request, username)  # type: ignore[attr-defined]
    return browser


def _take_back(request: HttpRequest) -> None:
    hits = getattr(request, "login_hits", ())
    if hits:
        run_in_event_loop(_forget_failure, hits)


async def _count_failure(counts: Sequence[Count]) -> list[Hit]:
    hits: list[Hit] = []
    for limiter, maximum, key in counts:
        hit = await limiter.try_hit(maximum, STAFF, key)
        if hit.remaining:
            limiter.refusals.increment()
            await _forget_failure(hits)
            raise errors.ApiError(errors.TOO_MANY_LOGINS, retry_after=math.ceil(hit.remaining))
        hits.append(hit)
    return hits


async def _forget_failure(hits: Sequence[Hit]) -> None:
    for hit in hits:
        await hit.undo()
