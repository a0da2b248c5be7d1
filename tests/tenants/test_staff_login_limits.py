"""The limits on logins of staff, by address block and by user name, and the browsers that they spare."""

from __future__ import annotations

import base64
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.test import Client

from ags.api.known_browser import COOKIE
from ags.limits import memory
from tests.support.clock import StoppedClock
from tests.support.staff import ErrorPage

RIGHT, WRONG = "a long staff password", "wrong"
BROWSER_MAXIMUM, ADDRESS_MAXIMUM, USERNAME_MAXIMUM = 5, 50, 100


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> StoppedClock:
    clock = StoppedClock()
    monkeypatch.setattr(memory, "time", clock)
    return clock


def log_in(password: str, username: str = "staff", address: str = "192.0.2.1", browser: Any = None) -> Any:
    """Send the form with a new browser, or with `browser`."""
    form = {"username": username, "password": password}
    return (browser or Client()).post("/admin/login/?next=/admin/", form, REMOTE_ADDR=address)


def addresses(number: int) -> list[str]:
    """Return different addresses."""
    return [f"198.51.100.{n}" if n < 250 else f"203.0.113.{n - 249}" for n in range(1, number + 1)]


def exceed_username(username: str = "staff") -> None:
    """Use up the logins of a user name, from many addresses."""
    statuses = Counter(
        log_in(WRONG, username, address).status_code for address in addresses(USERNAME_MAXIMUM)
    )
    assert statuses == {200: USERNAME_MAXIMUM}


def exceed_address(address: str = "192.0.2.1") -> None:
    """Use up the logins of an address, with many user names."""
    names = [f"user-{number}" for number in range(ADDRESS_MAXIMUM)]
    assert Counter(log_in(WRONG, name, address).status_code for name in names) == {200: ADDRESS_MAXIMUM}


def test_neighbours_in_a_64_network_are_one_client(staff: User, caplog: pytest.LogCaptureFixture) -> None:
    neighbours = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::1", "2001:db8::3", "2001:db8::4"]
    assert [log_in(WRONG, address=each).status_code for each in neighbours] == [200, 200, 200, 200, 429]
    assert log_in(RIGHT, address="2001:db8::5").status_code == 429
    assert {attempt.ip_address for attempt in AccessAttempt.objects.all()} == {"2001:db8::"}
    assert "Locking out 2001:db8::/64 after" in caplog.text
    assert log_in(RIGHT, address="2001:db8:0:1::1").status_code == 302


def test_an_ipv4_address_in_the_notation_of_ipv6_is_the_same(staff: User) -> None:
    for address in ("192.0.2.1", "::ffff:192.0.2.1"):
        assert log_in(WRONG, address=address).status_code == 200
    assert AccessAttempt.objects.get().failures_since_start == 2


def test_many_user_names_from_one_address(staff: User, clock: StoppedClock) -> None:
    exceed_address()
    clock.ahead = 10.5
    for _ in range(2):
        refused = log_in(RIGHT)
        assert (refused.status_code, refused["Retry-After"]) == (429, "890")
    page = ErrorPage(refused)
    assert page.title == "Too many failed logins"
    assert "Try again in 15 minutes." in page.sentences
    assert page.back == ("Back to the login", "/admin/login/")
    clock.ahead = 870.5
    assert "Try again in 30 seconds." in ErrorPage(log_in(RIGHT)).sentences
    assert log_in(RIGHT, address="192.0.2.2").status_code == 302
    clock.ahead = 900
    assert log_in(RIGHT).status_code == 302


def test_many_user_names_from_neighbours_in_a_64_network(staff: User) -> None:
    for number in range(ADDRESS_MAXIMUM):
        assert log_in(WRONG, f"user-{number}", f"2001:db8::{number}").status_code == 200
    assert log_in(RIGHT, address="2001:db8::ffff").status_code == 429
    assert log_in(RIGHT, address="2001:db8:0:1::1").status_code == 302


def test_one_user_name_from_many_addresses(staff: User, clock: StoppedClock) -> None:
    exceed_username()
    clock.ahead = 0.5
    refused = log_in(RIGHT, address="192.0.2.9")
    assert (refused.status_code, refused["Retry-After"]) == (429, "900")
    User.objects.create_superuser("colleague", password=RIGHT)
    assert log_in(RIGHT, "colleague", "192.0.2.9").status_code == 302
    clock.ahead = 900
    assert log_in(RIGHT, address="192.0.2.9").status_code == 302


def test_nothing_reveals_if_a_user_name_exists(staff: User) -> None:
    User.objects.create_superuser("anna-4711", password=RIGHT)
    seen = {}
    for username in ("anna-4711", "bert-0815"):
        tries = [log_in(WRONG, username, address) for address in addresses(USERNAME_MAXIMUM + 2)]
        tries += [log_in(WRONG, username, "192.0.2.77") for _ in range(2)]
        seen[username] = [
            (each.status_code, each.get("Retry-After"), set(each.cookies), shown(each, username))
            for each in tries
        ]
    assert seen["anna-4711"] == seen["bert-0815"]
    assert Counter(status for status, *_ in seen["anna-4711"]) == {200: USERNAME_MAXIMUM, 429: 4}


def shown(response: Any, username: str) -> str:
    """Return the page without what differs in each response."""
    text = response.content.decode().replace(username, "USER").replace(response["x-correlation-id"], "ID")
    return re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", text)


def test_a_known_browser_is_locked_out_by_nobody_else(staff: User) -> None:
    browser = Client()
    assert log_in(RIGHT, browser=browser).status_code == 302
    exceed_username()
    exceed_address()
    for address in ("192.0.2.1", "192.0.2.6"):
        assert log_in(RIGHT, address=address).status_code == 429
        assert log_in(RIGHT, address=address, browser=browser).status_code == 302
    assert log_in(RIGHT, "colleague", "192.0.2.1", browser).status_code == 429, "known for one user only"


def test_a_known_browser_is_not_locked_out_by_its_neighbours(staff: User) -> None:
    browser = Client()
    assert log_in(RIGHT, browser=browser).status_code == 302
    assert [log_in(WRONG).status_code for _ in range(5)] == [200, 200, 200, 200, 429]
    assert log_in(RIGHT).status_code == 429
    assert log_in(RIGHT, browser=browser).status_code == 302


def test_a_known_browser_locks_out_itself_only(staff: User, clock: StoppedClock) -> None:
    browser, other = Client(), Client()
    for each in (browser, other):
        assert log_in(RIGHT, browser=each).status_code == 302
    tries = [log_in(WRONG, browser=browser).status_code for _ in range(BROWSER_MAXIMUM + 1)]
    assert tries == [200] * BROWSER_MAXIMUM + [429]
    assert not AccessAttempt.objects.exists()
    clock.ahead = 1.5
    refused = log_in(RIGHT, browser=browser)
    assert (refused.status_code, refused["Retry-After"]) == (429, "899")
    assert log_in(RIGHT, browser=other).status_code == 302
    assert log_in(RIGHT).status_code == 302
    clock.ahead = 900
    assert log_in(RIGHT, browser=browser).status_code == 302


def test_the_cookie_of_a_known_browser(staff: User, settings: Any) -> None:
    for is_secure in (True, False):
        settings.SESSION_COOKIE_SECURE = is_secure
        cookie = log_in(RIGHT).cookies[COOKIE]
        assert cookie["httponly"]
        assert bool(cookie["secure"]) == is_secure
        assert (cookie["samesite"], cookie["path"]) == ("Strict", "/admin/login/")
        assert cookie["max-age"] == 90 * 24 * 3600
    payload = base64.urlsafe_b64decode(cookie.value.split(":")[0] + "==")
    assert str(staff.pk).encode() in payload
    assert b"staff" not in payload
    assert staff.get_session_auth_hash().encode() not in payload


def test_only_a_login_makes_a_browser_known(staff: User) -> None:
    browser = Client()
    browser.force_login(staff)
    assert browser.get("/admin/login/").status_code == 302
    for response in (browser.get("/admin/"), log_in(WRONG, browser=browser), log_in("", browser=browser)):
        assert COOKIE not in response.cookies
    assert COOKIE not in browser.cookies


def change_password(staff: User, cookie: str) -> str:
    staff.set_password(RIGHT)  # the same
    staff.save()
    return cookie


def cookie_of_another_user(staff: User, cookie: str) -> str:
    User.objects.create_superuser("colleague", password=RIGHT)
    return log_in(RIGHT, "colleague").cookies[COOKIE].value


def forged(staff: User, cookie: str) -> str:
    payload, *signature = cookie.split(":")
    changed = base64.urlsafe_b64decode(payload + "==").replace(b'"', b"'", 1)
    return ":".join([base64.urlsafe_b64encode(changed).decode().rstrip("="), *signature])


INVALID: dict[str, Any] = {
    "forged": forged,
    "without a signature": lambda _, cookie: cookie.split(":")[0],
    "with another signature": lambda _, cookie: cookie[:-1] + ("A" if cookie[-1] != "A" else "B"),
    "empty": lambda *_: "",
    "of another user": cookie_of_another_user,
    "after a change of the password": change_password,
}


@pytest.mark.parametrize("make", INVALID.values(), ids=INVALID)
def test_an_invalid_cookie_is_not_known(staff: User, make: Any) -> None:
    browser = Client()
    assert log_in(RIGHT, browser=browser).status_code == 302
    exceed_username()
    assert log_in(RIGHT, browser=browser).status_code == 302, "the cookie is known"
    browser.cookies[COOKIE] = make(staff, browser.cookies[COOKIE].value)
    assert log_in(RIGHT, browser=browser).status_code == 429


def test_a_browser_is_forgotten_90_days_after_its_last_login(staff: User) -> None:
    start = datetime.now(UTC)
    browser = Client()
    assert log_in(RIGHT, browser=browser).status_code == 302
    exceed_username()
    with time_machine.travel(start + timedelta(days=89)):
        assert log_in(RIGHT, browser=browser).status_code == 302
    with time_machine.travel(start + timedelta(days=178)):
        assert log_in(RIGHT, browser=browser).status_code == 302
    with time_machine.travel(start + timedelta(days=269)):
        assert log_in(RIGHT, browser=browser).status_code == 429


def test_logins_do_not_count(staff: User) -> None:
    for _ in range(ADDRESS_MAXIMUM + 5):
        assert log_in(RIGHT).status_code == 302
    exceed_address()
    assert log_in(RIGHT).status_code == 429
    browser = Client()
    assert log_in(RIGHT, address="192.0.2.2", browser=browser).status_code == 302
    for _ in range(BROWSER_MAXIMUM + 1):
        assert log_in(RIGHT, address="192.0.2.2", browser=browser).status_code == 302


def test_the_right_password_of_a_user_without_the_admin_counts(staff: User) -> None:
    User.objects.create_user("guest", password=RIGHT)
    statuses = [log_in(RIGHT, "guest").status_code for _ in range(ADDRESS_MAXIMUM + 1)]
    assert statuses == [200] * ADDRESS_MAXIMUM + [429]


def test_only_passwords_that_are_verified_count(staff: User) -> None:
    for _ in range(ADDRESS_MAXIMUM):
        assert log_in("").status_code == 200
    assert [log_in(WRONG, "other").status_code for _ in range(ADDRESS_MAXIMUM)][4:] == [429] * 46
    assert log_in(RIGHT).status_code == 302, "45 were locked out by user name and address"


def test_the_log_and_the_metrics_count_refused_logins(staff: User, caplog: pytest.LogCaptureFixture) -> None:
    names = ("staff_address", "staff_username", "staff_browser", "staff_lockout")
    before = {name: metric(name) for name in names}
    browser = Client()
    log_in(RIGHT, address="192.0.2.6", browser=browser)
    exceed_username()
    log_in(RIGHT, address="192.0.2.7")
    exceed_address()
    log_in(RIGHT)
    for _ in range(BROWSER_MAXIMUM + 1):
        log_in(WRONG, browser=browser)
    for _ in range(5):
        log_in(WRONG, "other", "192.0.2.8")
    assert {name: metric(name) - before[name] for name in names} == dict.fromkeys(names, 1)
    assert "staff" not in caplog.text.replace("staff_", "")
    refused = [vars(line) for line in caplog.records if vars(line).get("status") == 429]
    assert {(line["reason"], line["route"]) for line in refused} == {("too_many_logins", "/admin/")}
    assert len(refused) == len(names)


def metric(name: str) -> float:
    text = Client().get("/metrics", **{"ags.operations": True}).content.decode()  # type: ignore[arg-type]
    (value,) = re.findall(rf'ags_limited_requests_total{{limit="{name}"}} (\S+)', text)
    return float(value)
