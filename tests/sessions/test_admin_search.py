"""Searches: sent by POST, kept in the session, shown by GET."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from ags.sessions.tokens.opaque import token_hashes
from tenants.models import Assignment
from tests.support.clients import ClientApp, HeadEnd
from tests.support.staff import person

TOKENS = "/admin/ags_sessions/sessiontoken/"
ACCOUNTS = "/admin/ags_sessions/account/"
EVENTS = "/admin/ags_sessions/securityevent/"
EXPIRED = "This search has expired. Enter it again."


def search(browser: Client, page: str = ACCOUNTS, **criteria: str) -> str:
    """Submit the form and return the URL of the result."""
    sent = browser.post(page, {"tenant": "nagra", **criteria})
    assert sent.status_code == 302
    address: str = sent["Location"]
    return address


def rows(page: Any) -> list[list[str]]:
    table = page.context.get("table")
    return [] if table is None else table["rows"]


def searches(browser: Client) -> dict[str, Any]:
    """Return the searches in the session of the browser."""
    session = SessionStore(browser.cookies[settings.SESSION_COOKIE_NAME].value)
    return session.get("look_ups", {})


@pytest.fixture
def token(app: ClientApp) -> str:
    """A session token of account-1 of nagra. account-1 and account-2 have signed on."""
    for account in ("account-1", "account-2"):
        assert app.sign_on(account).status_code == 201
    return app.session_token()


def test_the_url_of_a_result_contains_no_search_terms(admin_client: Client, token: str) -> None:
    first = search(admin_client, account_id="account-1")
    second = search(admin_client, account_id="account-2")
    assert first.startswith(f"{ACCOUNTS}?result=")
    assert "account-1" not in first
    for address, account in ((first, "account-1"), (second, "account-2"), (first, "account-1")):
        page = admin_client.get(address)
        ((link, *_),) = rows(page)
        assert f">{account}</a>" in link
        text = page.content.decode()
        assert f'value="{account}"' in text, "the form shows the search terms"
        assert '<option value="nagra" selected>' in text
    assert not rows(admin_client.get(ACCOUNTS)), "the page without a search is empty"


def test_the_session_keeps_only_the_hash_of_a_token(admin_client: Client, token: str) -> None:
    address = search(admin_client, TOKENS, token=token)
    ((model, terms),) = searches(admin_client).values()
    assert model == "sessiontoken"
    assert terms == {"tenant": "nagra", "token_hashes": [token_hashes(token)[0].hex()]}
    page = admin_client.get(address)
    assert len(rows(page)) == 1
    assert token not in page.content.decode()


def test_a_session_keeps_the_latest_searches_until_the_logout(admin_client: Client, token: str) -> None:
    addresses = [search(admin_client, account_id=f"{number}" * 255) for number in range(9)]
    addresses += [search(admin_client, account_id="account-1") for _ in range(12)]
    names = [address.partition("=")[2] for address in addresses]
    assert list(searches(admin_client)) == names[1:]
    assert admin_client.get(addresses[0]).status_code == 200
    assert rows(admin_client.get(addresses[-1]))
    admin_client.post("/admin/logout/")
    assert not Session.objects.exists()


@pytest.mark.parametrize("name", ["", "x", "a%00b", "look_ups", "x" * 9000])
def test_an_unknown_search_finds_nothing(admin_client: Client, token: str, name: str) -> None:
    search(admin_client, account_id="account-1")
    page = admin_client.get(f"{ACCOUNTS}?result={name}")
    assert page.status_code == (400 if "%00" in name else 200)
    if page.status_code == 200:
        assert "table" not in page.context
        assert EXPIRED in page.content.decode()
        assert EXPIRED not in admin_client.get(ACCOUNTS).content.decode()


def test_an_invalid_form_shows_no_earlier_result(admin_client: Client, token: str) -> None:
    address = search(admin_client, account_id="account-1")
    page = admin_client.post(address, {"tenant": "", "account_id": "account-2"})
    assert page.status_code == 200
    text = page.content.decode()
    assert 'value="account-2"' in text
    assert "This field is required." in text
    assert "table" not in page.context
    assert "account-1" not in text
    assert EXPIRED not in text


def test_a_search_belongs_to_one_page_and_one_session(admin_client: Client, token: str) -> None:
    query = search(admin_client, account_id="account-1").partition("?")[2]
    for page in (TOKENS, "/admin/ags_sessions/device/"):
        assert not rows(admin_client.get(f"{page}?{query}"))
    assert rows(person("support", "nagra").get(f"{ACCOUNTS}?{query}")) == []


def test_a_result_excludes_tenants_that_are_no_longer_assigned(sunrise: HeadEnd, token: str) -> None:
    browser = person("support", "nagra", "sunrise")
    address = search(browser, account_id="account-1")
    assert len(rows(browser.get(address))) == 1
    Assignment.unscoped.filter(tenant_id="nagra").delete()
    page = browser.get(address)
    assert rows(page) == []
    assert '<option value="nagra"' not in page.content.decode()


def test_a_search_for_security_events_can_be_repeated(admin_client: Client, token: str) -> None:
    for account in ("account-1", "account-2"):
        app = ClientApp(HeadEnd("nagra", "nagra-key-1", bytes(range(1, 33))))
        redeemed = app.session_token(account)
        assert [app.redeem(redeemed).status_code for _ in range(2)] == [201, 401]
    assert len(rows(admin_client.get(EVENTS))) == 2
    address = search(admin_client, EVENTS, account_id="account-1")
    assert [row[3] for row in rows(admin_client.get(address))] == ["account-1"]
    for name in ("x", address.partition("=")[2] + "x"):
        page = admin_client.get(f"{EVENTS}?result={name}&tenant=nagra")
        assert "table" not in page.context, "the newest events are not the result"
        assert EXPIRED in page.content.decode()
    assert len(rows(admin_client.get(search(admin_client, EVENTS, tenant="")))) == 2


def test_a_session_ends_eight_hours_after_the_login_or_with_the_browser(staff: User, token: str) -> None:
    browser = Client()
    credentials = {"username": "staff", "password": "a long staff password"}
    lifetime = timedelta(hours=8)

    before = timezone.now()
    logged_in = browser.post("/admin/login/", credentials)
    end = Session.objects.get().expire_date
    assert before + lifetime <= end <= timezone.now() + lifetime
    cookie = logged_in.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["max-age"], cookie["expires"]) == ("", "")

    search(browser, account_id="account-1")
    password = "another long staff password"
    change = {"old_password": credentials["password"], "new_password1": password, "new_password2": password}
    changed = browser.post("/admin/password_change/", change)
    assert changed.status_code == 302
    assert Session.objects.get().expire_date == end
    cookie = changed.cookies[settings.SESSION_COOKIE_NAME]
    assert (cookie["max-age"], cookie["expires"]) == ("", "")

    browser.post("/admin/login/", credentials | {"password": password})
    assert Session.objects.get().expire_date > end
    Session.objects.update(expire_date=before)
    assert browser.get(ACCOUNTS).status_code == 302
