"""The door of the pages: login, lock-out, what they are served with, and doing without them."""

import json
import logging
import os
import subprocess
import sys

import pytest
from axes.models import AccessAttempt, AccessFailureLog, AccessLog
from django.contrib.auth.models import Permission, User
from django.test import Client

from tests.settings import ENVIRONMENT

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
        locked = client.post(LOGIN, {"username": "staff", "password": RIGHT}, **by)
        assert locked.status_code == 429
        assert locked["Retry-After"] == "900"
        assert locked.json() == {
            "code": 42900,
            "reason": "too_many_logins",
            "message": "Too many logins have failed. Try again in 15 minutes.",
            "correlationId": locked["x-correlation-id"],
        }
    assert client.get("/admin/").status_code == 302
    assert _log_in(client, RIGHT, REMOTE_ADDR="198.51.100.7") == 302, "nobody locks out a colleague elsewhere"


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
        assert b"".join(served.streaming_content)  # type: ignore[arg-type]
    assert client.get("/static/no-such-file").status_code == 404


def test_a_group_offers_what_the_pages_heed(admin_client: Client) -> None:
    offered = (
        admin_client.get("/admin/auth/group/add/").context["adminform"].form.fields["permissions"].queryset
    )
    assert set(offered.values_list("codename", flat=True)) == {
        *(f"{act}_{model}" for act in ("add", "change", "view") for model in ("tenant", "service", "key")),
        "all_tenants",
        "change_sessiontoken",
        "view_sessiontoken",
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


WITHOUT_ADMIN = """
import json
import django
django.setup()
from django.test import Client
client = Client(headers={"host": "localhost"})
paths = ["/admin", "/admin/", "/admin/login/", "/admin/tenants/tenant/", "/healthz"]
print(json.dumps({path: [(a := client.get(path, secure=True)).status_code, a.json()] for path in paths}))
"""


def test_a_process_can_do_without_the_pages() -> None:
    environment = {
        **os.environ,
        **ENVIRONMENT,
        "AGS_ADMIN": "off",
        "AGS_PROVIDERS": "providers.operator_token",
        "DEBUG": "off",
        "DJANGO_SETTINGS_MODULE": "ags.settings",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_ADMIN], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    assert answers.pop("/healthz")[0] == 200
    for status, body in answers.values():
        assert status == 404
        assert body["reason"] == "not_found"
