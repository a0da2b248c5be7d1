"""Errors of the pages of staff."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from tests.support.responses import CORRELATION_ID, METHODS, error_response, full_response, send
from tests.support.staff import person

# Staff pages


STAFF_PATHS = [
    "/admin",
    "/admin/",
    "/admin/login/",
    "/admin/logout/",
    "/admin/nothing/",
    "/admin/nothing",
    "/admin/jsi18n/",
    "/admin/password_change/",
    "/admin/autocomplete/",
    "/admin/auth/user/1/password/",
    "/admin/tenants/tenant/",
    "/admin/tenants/tenant/?name=x",
    "/admin/tenants/tenant/add/",
    "/admin/tenants/tenant/nobody/change/",
    "/admin/tenants/service/add/",
    "/admin/tenants/key/1/history/",
    "/admin/%00",
    "/docs/",
    "/docs/nothing",
    "/explanations/",
    "/explanations/nothing",
    "/explanations/1-1." + "a" * 43,
    "/static/",
    "/static/nothing",
    "/static/admin/css/base.css",
]


@pytest.mark.once
@pytest.mark.parametrize("path", STAFF_PATHS)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_of_staff_pages(admin_client: Client, settings: Any, path: str, debug: bool) -> None:
    settings.DEBUG = debug
    without_csrf_token = Client(enforce_csrf_checks=True)
    without_csrf_token.cookies = admin_client.cookies
    for browser in (Client(), admin_client, person("auditor"), without_csrf_token):
        for method in METHODS:
            response = send(browser, method, path)
            if response.status_code < 400:
                continue
            is_page = path.startswith(("/admin", "/explanations/"))
            content_type = "text/html; charset=utf-8" if is_page else "application/json"
            assert response.headers["Content-Type"] == content_type
            assert response.headers["Cache-Control"] == "no-store"
            assert ("Allow" in response.headers) == (response.status_code == 405)
            if method == "HEAD":
                assert response.content == b""
            elif is_page:
                assert response.headers["X-Frame-Options"] == "DENY"
                source = "'none'" if path.startswith("/explanations/") else "'self'"
                assert f"default-src {source}" in response.headers["Content-Security-Policy"]
                assert f">{CORRELATION_ID}</code>" in response.content.decode()
            else:
                body = response.json()
                assert list(body) == ["code", "reason", "message", "correlationId"]
                assert (body["code"] // 100, body["correlationId"]) == (response.status_code, CORRELATION_ID)


@pytest.mark.parametrize(
    ("cookies", "status"),
    [
        ("{name}={key}", 200),
        ('{name}="{key}"', 200),
        ('other="\\"x"; {name}={key}; another=\\', 200),
        ('{name}="\\{octal}{rest}"', 302),  # the cookie is removed: not logged in
    ],
)
def test_staff_pages_ignore_cookies_with_a_backslash(
    admin_client: Client, settings: Any, cookies: str, status: int
) -> None:
    key = admin_client.cookies[settings.SESSION_COOKIE_NAME].value
    octal, rest = f"{ord(key[0]):03o}", key[1:]
    header = cookies.format(name=settings.SESSION_COOKIE_NAME, key=key, octal=octal, rest=rest)
    assert Client().get("/admin/", headers={"cookie": header}).status_code == status


def test_unsatisfiable_range(client: Client) -> None:
    headers = {"range": "bytes=99999999-", "x-correlation-id": CORRELATION_ID}
    response = client.get("/static/admin/css/base.css", headers=headers)
    size = response.headers["Content-Range"]
    assert size.startswith("bytes */")
    assert full_response(response) == error_response(
        416,
        41600,
        "range_not_satisfiable",
        "The file does not contain the requested range of bytes.",
        Content_Range=size,
    )
