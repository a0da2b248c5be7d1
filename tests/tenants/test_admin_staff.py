"""The door of the pages: login, lock-out, what they are served with, and doing without them."""

import json
import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth.models import Permission, User
from django.test import Client

from ags.explanations.links import build_path
from ags.explanations.models import ExplanationLink
from tests.settings import ENVIRONMENT
from tests.support.staff import ErrorPage

LOGIN = "/admin/login/?next=/admin/"
WRONG = "wrong-password-marker-8271"
RIGHT = "a long staff password"


def _log_in(client: Client, password: str, **extra: str) -> int:
    return client.post(LOGIN, {"username": "staff", "password": password}, **extra).status_code  # type: ignore[arg-type]


def test_staff_log_in_with_a_password(client: Client, staff: User) -> None:
    assert client.get("/admin/").status_code == 302
    assert _log_in(client, WRONG) == 200
    assert _log_in(client, RIGHT) == 302
    assert client.get("/admin/").status_code == 200
    cookie = client.cookies["sessionid"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


def test_after_five_failures_the_right_password_is_refused_too(client: Client, staff: User) -> None:
    assert [_log_in(client, WRONG) for _ in range(5)] == [200, 200, 200, 200, 429]
    for by in ({}, {"HTTP_X_REQUESTED_WITH": "XMLHttpRequest"}):
        locked = client.post(LOGIN, {"username": "staff", "password": RIGHT}, **by)  # type: ignore[arg-type]
        assert locked.status_code == 429
        assert locked["Retry-After"] == "900"
        page = ErrorPage(locked)
        assert page.title == "Too many failed logins"
        assert "Try again in 15 minutes." in page.sentences
        assert page.back == ("Back to the login", "/admin/login/")
        assert "Access-Control-Allow-Origin" not in locked
    assert client.get("/admin/").status_code == 302
    assert _log_in(client, RIGHT, REMOTE_ADDR="198.51.100.7") == 302, "nobody locks out a colleague elsewhere"


# X-Forwarded-For as a proxy at 10.0.0.1 sends it, and the address that is locked out (IPv6: of its /64).
FORWARDED = {
    "an address": ("203.0.113.7", "203.0.113.7"),
    "what the caller wrote before it": ("198.51.100.1, 203.0.113.7", "203.0.113.7"),
    "junk before it": ("junk,203.0.113.7", "203.0.113.7"),
    "with a port": ("203.0.113.7:5678", "203.0.113.7"),
    "IPv6": ("2001:DB8::7", "2001:db8::"),
    "IPv6 in brackets": ("[2001:db8::7]", "2001:db8::"),
    "IPv6 with a port": ("[::1]:80", "::"),
    "IPv6 with a zone": ("fe80::1%eth0", "fe80::"),
    "nothing": (None, "10.0.0.1"),
    "empty": ("", "10.0.0.1"),
    "nothing at last": ("203.0.113.7,", "10.0.0.1"),
    "junk": ("junk", "10.0.0.1"),
    "a word of the standard": ("unknown", "10.0.0.1"),
    "too many digits": ("1.2.3.4.5", "10.0.0.1"),
    "only a port": (":80", "10.0.0.1"),
    "empty brackets": ("[]:80", "10.0.0.1"),
    "a network": ("203.0.113.0/24", "10.0.0.1"),
    "digits of another script": ("\u0661.2.3.4".encode().decode("latin-1"), "10.0.0.1"),
}


@pytest.mark.parametrize(("header", "address"), FORWARDED.values(), ids=FORWARDED)
def test_behind_a_proxy_it_is_the_callers_address_that_is_locked_out(
    client: Client, staff: User, settings: Any, header: str | None, address: str
) -> None:
    settings.AGS_TRUSTED_PROXIES = 1
    extra = {"REMOTE_ADDR": "10.0.0.1"} | ({} if header is None else {"HTTP_X_FORWARDED_FOR": header})
    assert [_log_in(client, WRONG, **extra) for _ in range(5)] == [200, 200, 200, 200, 429]
    assert AccessAttempt.objects.get().ip_address == address
    assert _log_in(client, RIGHT, **extra) == 429
    assert _log_in(client, RIGHT, **extra | {"HTTP_X_FORWARDED_FOR": "192.0.2.9"}) == 302


def test_without_a_trusted_proxy_nobody_says_where_he_comes_from(client: Client, staff: User) -> None:
    for header in ("203.0.113.7", "junk"):
        assert _log_in(client, WRONG, REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=header) == 200
    attempt = AccessAttempt.objects.get()
    assert (attempt.ip_address, attempt.failures_since_start) == ("10.0.0.1", 2)


def test_behind_two_proxies_the_second_from_the_right_is_the_caller(
    client: Client, staff: User, settings: Any
) -> None:
    settings.AGS_TRUSTED_PROXIES = 2
    for header in ("198.51.100.1, 203.0.113.7, 10.0.0.2", "203.0.113.7:1, junk"):
        assert _log_in(client, WRONG, REMOTE_ADDR="10.0.0.1", HTTP_X_FORWARDED_FOR=header) == 200
    attempt = AccessAttempt.objects.get()
    assert (attempt.ip_address, attempt.failures_since_start) == ("203.0.113.7", 2)


@pytest.mark.parametrize("proxies", [0, 1])
def test_on_a_unix_socket_there_may_be_no_address_at_all(
    client: Client, staff: User, settings: Any, proxies: int
) -> None:
    settings.AGS_TRUSTED_PROXIES = proxies
    assert [_log_in(client, WRONG, REMOTE_ADDR="") for _ in range(5)] == [200, 200, 200, 200, 429]
    assert AccessAttempt.objects.get().ip_address is None
    assert _log_in(client, RIGHT, REMOTE_ADDR="") == 429
    settings.AGS_TRUSTED_PROXIES = 1
    assert _log_in(client, RIGHT, REMOTE_ADDR="", HTTP_X_FORWARDED_FOR="192.0.2.9") == 302


def test_a_password_is_neither_logged_nor_stored(
    client: Client, staff: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for password in (*[WRONG] * 6, RIGHT):
        _log_in(client, password)
    _log_in(client, RIGHT, REMOTE_ADDR="198.51.100.7")
    assert caplog.records
    rows = [*AccessAttempt.objects.all(), *AccessFailureLog.objects.all(), *AccessLog.objects.all()]
    assert AccessAttempt.objects.exists()
    for place in (*caplog.records, *rows):
        told = str(vars(place))
        assert WRONG not in told
        assert RIGHT not in told


def test_pages_are_not_kept_by_a_browser_and_trust_nobody_else(admin_client: Client, db: None) -> None:
    page = admin_client.get("/admin/")
    assert "no-store" in page["Cache-Control"]
    assert page["X-Frame-Options"] == "DENY"
    assert page["Referrer-Policy"] == "same-origin"
    policy = page["Content-Security-Policy"]
    for directive in (
        "default-src 'self'",
        "object-src 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ):
        assert directive in policy
    assert "http:" not in policy
    assert "*" not in policy


def test_files_of_the_pages_are_served_by_the_application_itself(client: Client) -> None:
    for file in ("unfold/css/styles.css", "unfold/js/alpine/alpine.js", "admin/js/jquery.init.js"):
        served = client.get(f"/static/{file}")
        assert served.status_code == 200
        assert b"".join(served.streaming_content)  # type: ignore[attr-defined]
    assert client.get("/static/no-such-file").status_code == 404


def test_a_group_offers_what_the_pages_heed(admin_client: Client) -> None:
    offered = (
        admin_client.get("/admin/auth/group/add/").context["adminform"].form.fields["permissions"].queryset
    )
    assert set(offered.values_list("codename", flat=True)) == {
        *(
            f"{act}_{model}"
            for act in ("add", "change", "view")
            for model in ("tenant", "service", "key", "resourceserver", "account", "explanationlink")
        ),
        *(
            f"{act}_{model}"
            for act in ("change", "view")
            for model in ("signingkey", "sessiontoken", "device")
        ),
        "all_tenants",
        "view_securityevent",
        "view_event",
        "delete_account",
        "delete_device",
    }
    added = admin_client.post(
        "/admin/auth/group/add/",
        {"name": "look-up desk", "permissions": [Permission.objects.get(codename="view_sessiontoken").pk]},
    )
    assert added.status_code == 302


def test_an_account_is_made_and_given_a_group(admin_client: Client) -> None:
    password = "a password for somebody new"
    made = admin_client.post(
        "/admin/auth/user/add/",
        {"username": "somebody", "usable_password": "true", "password1": password, "password2": password},
    )
    assert made.status_code == 302
    somebody = User.objects.get(username="somebody")
    assert somebody.check_password(password)
    address = f"/admin/auth/user/{somebody.pk}/"
    saved = admin_client.post(
        address + "change/", {"username": "somebody", "is_active": "on", "is_staff": "on"}
    )
    assert saved.status_code == 302
    somebody.refresh_from_db()
    assert somebody.is_staff
    assert admin_client.post(address + "delete/", {"post": "yes"}).status_code == 403


def test_a_short_password_is_refused(admin_client: Client) -> None:
    page = admin_client.post(
        "/admin/auth/user/add/",
        {"username": "x", "usable_password": "true", "password1": "short-11chr", "password2": "short-11chr"},
    )
    assert page.context["adminform"].form.errors["password2"]


SERVED = """
import json
import sys
import django
django.setup()
from django.test import Client
from ags.urls import API
client = Client(raise_request_exception=False, headers={"host": "localhost"})
def ask(path, method="GET"):
    answer = client.generic(method, path, secure=True)
    is_json = answer.headers.get("Content-Type") == "application/json"
    return [answer.status_code, answer.json().get("reason") if is_json else None]
served = {path: ask(path) for path in sys.argv[1:]}
api = {str(url.pattern): [ask(f"/{url.pattern}", method) for method in ("GET", "POST")] for url in API}
json.dump({"served": served, "api": api}, sys.stdout)
"""
NOT_FOUND = [404, "not_found"]
EVERYWHERE = {
    "/docs": [302, None],
    "/docs/": [200, None],
    "/openapi.json": [200, None],
    "/static/unfold/css/styles.css": [200, None],
    "/healthz": [200, None],
    # The signature is valid, and the process has no database.
    build_path(ExplanationLink(pk=1, created_at=datetime(2026, 1, 1, tzinfo=UTC))): [503, None],
    "/nowhere": NOT_FOUND,
}
ADMIN = {
    "/admin": [302, None],
    "/admin/": [302, None],
    "/admin/login/": [200, None],
    "/admin/tenants/tenant/": [302, None],
}


@pytest.mark.parametrize(
    ("value", "api", "admin"),
    [("off", True, False), ("only", False, True)],
)
def test_a_process_can_do_without_the_admin_or_the_api(value: str, api: bool, admin: bool) -> None:
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "AGS_ADMIN": value,
        "AGS_PROVIDERS": "providers.operator_token,providers.token_introspection",
        "DEBUG": "off",
        "DJANGO_SETTINGS_MODULE": "ags.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", SERVED, *EVERYWHERE, *ADMIN],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["served"] == EVERYWHERE | (ADMIN if admin else dict.fromkeys(ADMIN, NOT_FOUND))
    assert len(seen["api"]) == 10
    for path, answers in seen["api"].items():
        assert [answer == NOT_FOUND for answer in answers] == [not api, not api], path
