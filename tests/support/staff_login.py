"""Logins of staff at running servers."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from tests.support.server import Response, ServerProcess

TOKEN = "a" * 32
"""The cookie and the field of Django's protection against CSRF, which must be the same."""


def post_form(
    server: ServerProcess,
    path: str,
    *,
    scheme: str = "https",
    address: str = "192.0.2.1",
    cookie: str = "",
    **fields: str,
) -> Response:
    """Send a form as a browser does, through a proxy. `cookie`: another cookie than that against CSRF."""
    return server.generic(
        "POST",
        path,
        urlencode({"csrfmiddlewaretoken": TOKEN, **fields}),
        "application/x-www-form-urlencoded",
        headers={
            "Cookie": f"csrftoken={TOKEN}; {cookie}",
            "Origin": f"{scheme}://127.0.0.1:{server.port}",
            "X-Forwarded-Proto": scheme,
            "X-Forwarded-For": address,
        },
    )


def post_login(server: ServerProcess, username: str, password: str, **options: str) -> Response:
    return post_form(server, "/admin/login/", username=username, password=password, **options)


def read_cookie(response: Response, name: str) -> str:
    """Return a cookie of a response, as the browser sends it back."""
    cookies = response.headers.get_all("set-cookie") or ()
    (cookie,) = (match[0] for each in cookies if (match := re.match(f"{name}=[^;]+", each)))
    return cookie
