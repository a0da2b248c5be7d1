"""Errors on the pages of staff: a page in the frame of the admin, with a sentence and a way back."""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client

from tests.support.clients import HeadEnd
from tests.support.database import database_unavailable
from tests.support.responses import reasons
from tests.support.staff import ErrorPage, person

pytestmark = pytest.mark.once

ID = "call-4711"
LOGIN = "/admin/login/"
TENANTS = "/admin/tenants/tenant/"


def test_what_is_not_there_is_a_page_that_leads_back(admin_client: Client, nagra: HeadEnd) -> None:
    for path in ("/admin/nothing/", "/admin/nothing", f"{TENANTS}nobody/change/"):
        answer = admin_client.get(path)
        page = ErrorPage(answer)
        assert page.signed_in
        assert (answer.status_code, page.title) == (404, "Page not found")
        assert page.back == ("Back to the start page", "/admin/")
    assert Client().get("/admin/nothing/").status_code == 302, "whoever is not signed on sees nothing of it"


def test_what_an_account_may_not_do_names_no_page_that_it_may_not_see(nagra: HeadEnd) -> None:
    browser = person("auditor", "nagra")
    answer = browser.get(f"{TENANTS}add/")
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (403, "You do not have permission")
    assert page.signed_in
    text = answer.content.decode()
    assert "/admin/tenants/service/" in text
    assert "/admin/auth/user/" not in text


@pytest.mark.parametrize("query", [{"services__name": "x"}, {"q": "a\0b"}])
def test_an_unknown_filter_leads_to_the_list_without_it(
    admin_client: Client, nagra: HeadEnd, query: dict[str, str]
) -> None:
    answer = admin_client.get(TENANTS, query)
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (400, "Bad request")
    assert page.back == ("Open the page without its query", TENANTS)
    assert admin_client.get(page.back[1]).status_code == 200


def test_an_address_that_cannot_be_used_so_says_so(admin_client: Client) -> None:
    answer = admin_client.get("/admin/logout/")
    page = ErrorPage(answer)
    assert (answer.status_code, page.title, answer["Allow"]) == (405, "Method not allowed", "POST, OPTIONS")
    assert page.back[1] == "/admin/"


def test_a_message_waits_for_the_page_that_is_not_an_error(admin_client: Client, nagra: HeadEnd) -> None:
    admin_client.post(f"{TENANTS}nagra/disable/")
    assert "is disabled." not in admin_client.get("/admin/nothing/").content.decode()
    assert "Tenant nagra is disabled." in admin_client.get(TENANTS).content.decode()


# Forms


def test_a_form_without_its_token_has_expired(admin_client: Client, nagra: HeadEnd) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = admin_client.cookies
    path = "/admin/tenants/service/add/?tenant=nagra&strategy=operator_token"
    answer = browser.post(path, {"csrfmiddlewaretoken": "x" * 64})
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (403, "The form has expired")
    assert page.sentences.startswith("Nothing was saved.")
    assert page.back == ("Reload the page", path)
    assert browser.get(page.back[1]).status_code == 200


def test_a_log_out_without_its_token_leads_to_a_page_that_can_log_out(admin_client: Client) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = admin_client.cookies
    answer = browser.post("/admin/logout/", {"csrfmiddlewaretoken": "x" * 64})
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (403, "The form has expired")
    assert page.back == ("Back to the start page", "/admin/")
    assert page.signed_in
    assert browser.get(page.back[1]).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("get", "/admin/nothing/"), ("post", "/admin/logout/")])
def test_the_log_out_of_an_error_page_works_without_an_earlier_cookie(
    admin_client: Client, method: str, path: str
) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = admin_client.cookies
    assert settings.CSRF_COOKIE_NAME not in browser.cookies
    answer = getattr(browser, method)(path)
    assert ErrorPage(answer).signed_in
    token = re.findall('name="csrfmiddlewaretoken" value="([^"]+)"', answer.content.decode())[0]
    assert browser.post("/admin/logout/", {"csrfmiddlewaretoken": token}).status_code == 200
    assert not Session.objects.exists()


def test_a_page_without_a_form_sends_no_cookie(db: None) -> None:
    browser = Client(enforce_csrf_checks=True)
    for answer in (browser.get("/admin/", headers={"host": "internal"}), browser.post(LOGIN)):
        assert not ErrorPage(answer).signed_in
        assert not answer.cookies


# What the browser says, what AGS sees, and the two as the page names them.
PROXIED: dict[str, tuple[dict[str, str], str, str]] = {
    "the Host header is changed": (
        {"origin": "https://ags.example", "host": "127.0.0.1:8000"},
        "https://ags.example",
        "http://127.0.0.1:8000",
    ),
    "the port is changed": (
        {"origin": "http://localhost:8080", "host": "localhost:8000"},
        "http://localhost:8080",
        "http://localhost:8000",
    ),
    "the scheme is changed": (
        {"origin": "https://localhost", "host": "localhost"},
        "https://localhost",
        "http://localhost",
    ),
    "no origin": ({"origin": "null", "host": "localhost"}, "null", "http://localhost"),
    "markup": (
        {"origin": "https://<b>" + "x" * 9000, "host": "localhost"},
        "https://<b>" + "x" * 189,
        "http://localhost",
    ),
    "only the Referer header": (
        {"x-forwarded-proto": "https", "referer": "https://ags.example/admin/?secret", "host": "localhost"},
        "https://ags.example",
        "https://localhost",
    ),
    "neither": ({"x-forwarded-proto": "https", "host": "localhost"}, "unknown", "https://localhost"),
    "half an address": (
        {"x-forwarded-proto": "https", "referer": "https://[::1", "host": "localhost"},
        "unknown",
        "https://localhost",
    ),
}


@pytest.mark.parametrize(("headers", "origin", "seen"), PROXIED.values(), ids=PROXIED)
def test_a_proxy_that_changes_the_address_is_named_as_the_reason(
    staff: User, settings: Any, headers: dict[str, str], origin: str, seen: str
) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    browser = Client(enforce_csrf_checks=True)
    form = {"username": "staff", "password": "a long staff password"}
    answer = browser.post(LOGIN, form, headers=headers)
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (403, "The form comes from another origin")
    assert f"sent from “{origin}” and received at “{seen}”. Nothing was saved." in page.sentences
    for setting in ("Host header", "AGS_ALLOWED_HOSTS", "AGS_TRUSTED_PROXIES", "X-Forwarded-Proto"):
        assert setting in page.sentences
    assert "<b>" not in answer.content.decode()
    assert not page.signed_in
    assert not Session.objects.exists()


@pytest.mark.parametrize(
    ("host", "shown"),
    [("internal:8000", "internal:8000"), ("<b>", "<b>"), ("x" * 9000, "x" * 200), ("", "")],
)
@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/tenants/?a=b"])
def test_a_host_that_is_not_allowed_is_named(admin_client: Client, host: str, shown: str, path: str) -> None:
    answer = admin_client.get(path, headers={"host": host})
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (400, "This host is not allowed")
    assert f"for the host “{shown}”, which AGS_ALLOWED_HOSTS does not contain." in page.sentences
    assert page.back == ("Reload the page", path)
    assert "<b>" not in answer.content.decode()


FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=x"
FILE = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n%b\r\n--x--\r\n'
TOO_LARGE = (413, "The form is too large")
MALFORMED = (400, "Bad request")
FORMS = {
    "3 MB": (FORM, b"a=" + b"x" * 3_000_000, TOO_LARGE),
    "a file of 3 MB": (MULTIPART, FILE % (b"x" * 3_000_000), TOO_LARGE),
    "1,001 fields": (FORM, b"a=&" * 1001, TOO_LARGE),
    "101 files": (MULTIPART, (FILE % b"x").removesuffix(b"--\r\n").join([b"\r\n"] * 102), TOO_LARGE),
    "no boundary": ("multipart/form-data", b"x", MALFORMED),
    "Latin-1": (f"{FORM}; charset=latin-1", b"a=b", MALFORMED),
}


@pytest.mark.parametrize(("content_type", "body", "expected"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("debug", [False, True])
def test_a_form_that_is_too_large_or_malformed(
    db: None,
    client: Client,
    settings: Any,
    content_type: str,
    body: bytes,
    expected: tuple[int, str],
    debug: bool,
) -> None:
    settings.DEBUG = debug
    answer = client.post(LOGIN, body, content_type=content_type)
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == expected
    assert not page.signed_in


# What goes wrong in AGS


@pytest.mark.parametrize("debug", [False, True])
def test_a_crash_is_a_page_that_tells_nothing_and_is_logged(
    admin_client: Client, settings: Any, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    settings.DEBUG = debug
    caplog.set_level(logging.INFO)
    admin_client.raise_request_exception = False
    statements = []

    def broken(*_: Any) -> None:
        statements.append(1)
        raise ValueError("secret-marker-0815")

    with connection.execute_wrapper(broken):
        answer = admin_client.get("/admin/", headers={"x-correlation-id": ID})
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (500, "Something went wrong")
    assert not page.signed_in
    assert "marker-0815" not in answer.content.decode()
    assert len(statements) == 1 or debug, "the page itself reads nothing; that of Django does"
    (crash,) = [line for line in caplog.records if line.message == "crash"]
    assert vars(crash)["exception"] == "ValueError"
    assert "in broken" in vars(crash)["traceback"]
    assert reasons(caplog) == ["ValueError"]


@pytest.mark.parametrize("debug", [False, True])
def test_a_database_that_is_away_is_a_page_that_does_not_need_it(
    admin_client: Client, settings: Any, caplog: pytest.LogCaptureFixture, debug: bool
) -> None:
    settings.DEBUG = debug
    caplog.set_level(logging.INFO)
    admin_client.raise_request_exception = False
    with database_unavailable():
        answer = admin_client.get("/admin/?a=b")
        lost = admin_client.get("/admin/", headers={"host": "internal"})
    page = ErrorPage(answer)
    assert (answer.status_code, page.title, answer["Retry-After"]) == (503, "AGS is unavailable", "1")
    assert page.back == ("Reload the page", "/admin/?a=b")
    assert not page.signed_in
    assert ErrorPage(lost).title == "This host is not allowed"
    assert reasons(caplog) == ["database_unavailable", "host_invalid"]


def test_a_database_that_goes_away_while_the_frame_is_made_leaves_the_page(
    admin_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.cookies = admin_client.cookies
    with database_unavailable():
        answer = browser.post(LOGIN, {"username": "x"})  # refused before anybody asked who sent it
    page = ErrorPage(answer)
    assert (answer.status_code, page.title) == (403, "The form has expired")
    assert not page.signed_in
    assert [vars(line)["exception"] for line in caplog.records if line.message == "crash"] == [
        "OperationalError"
    ]
