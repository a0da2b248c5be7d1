"""The browsers with which staff have logged in before: others cannot lock them out."""

import secrets

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.crypto import constant_time_compare, salted_hmac

COOKIE = "known_browser"

MAX_AGE = 90 * 24 * 3600
"""Seconds from the last login."""

_SALT = "ags.api.known_browser"


def remember_browser(response: HttpResponse, user: User) -> None:
    """Set a cookie with an ID of the browser, which is valid until the password of the user changes."""
    value = signing.dumps([user.pk, _password_fingerprint(user), secrets.token_urlsafe(12)], salt=_SALT)
    response.set_cookie(
        COOKIE,
        value,
        max_age=MAX_AGE,
        path=reverse("admin:login"),
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Strict",
    )


def find_known_browser(request: HttpRequest, username: str) -> str:
    """Return the ID of the browser, or an empty string if it has not logged in as this user before."""
    try:
        user_id, fingerprint, browser = signing.loads(
            request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=MAX_AGE
        )
    except signing.BadSignature:
        return ""
    user = User.objects.filter(pk=user_id, username=username).first()
    is_known = user is not None and constant_time_compare(fingerprint, _password_fingerprint(user))
    return browser if is_known else ""


def _password_fingerprint(user: User) -> str:
    return salted_hmac(_SALT, user.get_session_auth_hash()).hexdigest()
