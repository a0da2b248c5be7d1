"""Logins of staff at running servers: many at the same time, and limits that servers share through Redis."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from django.contrib.auth.models import User

from ags.sessions.models import Event
from tests.support.clients import HeadEnd
from tests.support.live import wait_until_served
from tests.support.markers import skip_unless_installed
from tests.support.server import Client, Response, ServerProcess
from tests.support.staff_login import post_form, post_login, read_cookie
from tests.support.upstream.redis_server import redis_server
from tests.support.waiting import PATIENCE, wait_until

RIGHT, WRONG = "a long staff password", "wrong"
HTTPS = {"X-Forwarded-Proto": "https"}
ADDRESS_MAXIMUM, BROWSER_MAXIMUM = 50, 5
FLOOD = 8
AT_ONCE = 2
"""One password is being verified, and one waits."""


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file. While it exists, no server finishes to hash a password."""
    return tmp_path / "hold"


@pytest.fixture
def staff(transactional_db: None) -> User:
    password = PBKDF2PasswordHasher().encode(RIGHT, "0123456789012345678901", iterations=1)
    return User.objects.create(username="staff", password=password, is_staff=True, is_superuser=True)


def staff_server(hold: Path, **changes: str) -> ServerProcess:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.live.password_settings", "HELD_PASSWORDS": str(hold)}
    return ServerProcess(AGS_TRUSTED_PROXIES="1", **settings, **changes)


@contextmanager
def flood(server: ServerProcess, hold: Path) -> Iterator[tuple[list[Response], list[Future[Response]]]]:
    """Send logins at the same time. Yield the responses, and those that are still missing."""
    hold.touch()
    with ThreadPoolExecutor(FLOOD) as pool:
        try:
            sent = [pool.submit(post_login, server, f"user-{number}", WRONG) for number in range(FLOOD)]
            done = list(islice(as_completed(sent, PATIENCE), FLOOD - AT_ONCE))
            yield [each.result() for each in done], [each for each in sent if each not in done]
        finally:
            hold.unlink()


def test_passwords_are_verified_one_at_a_time(staff: User, nagra: HeadEnd, hold: Path, port: int) -> None:
    with staff_server(hold, AGS_OPERATIONS_BIND=f"127.0.0.1:{port}") as server:
        head_end = wait_until_served(server, nagra)
        logged_in = post_login(server, "staff", RIGHT)
        session, known = (read_cookie(logged_in, name) for name in ("sessionid", "known_browser"))
        with flood(server, hold) as (refused, waiting):
            assert {(each.status_code, each.headers["Retry-After"]) for each in refused} == {(429, "2")}
            assert all("Too many logins at the same time" in each.content.decode() for each in refused)
            change = {"old_password": RIGHT, "new_password1": WRONG, "new_password2": WRONG}
            assert post_form(server, "/admin/password_change/", cookie=session, **change).status_code == 429
            for _ in range(BROWSER_MAXIMUM + 1):
                assert post_login(server, "staff", RIGHT, cookie=known).status_code == 429
            page = server.get("/admin/tenants/tenant/", headers={**HTTPS, "Cookie": session})
            assert page.status_code == 200
            assert head_end.present(nagra.token()).status_code == 200
            assert not any(each.done() for each in waiting)
        assert [each.result().status_code for each in waiting] == [200] * AT_ONCE
        assert post_login(server, "staff", RIGHT, cookie=known).status_code == 302
        refused_passwords = FLOOD - AT_ONCE + 1 + BROWSER_MAXIMUM + 1
        operations = Client(port)
        metrics = operations.get("/metrics").content.decode()
        operations.close()
        assert f'ags_limited_requests_total{{limit="staff_passwords"}} {refused_passwords}.0' in metrics

        # Of the flood, only the passwords that were verified count as failures of the address.
        for number in range(ADDRESS_MAXIMUM - AT_ONCE):
            assert post_login(server, f"other-{number}", WRONG).status_code == 200
        assert post_login(server, "staff", RIGHT).status_code == 429
        logins = Event.unscoped.filter(reason="too_many_logins")
        wait_until(logins.exists, "the refused login is not stored")
        event = logins.get()
        assert (event.kind, event.tenant_id, event.actor, event.account_id) == ("refused", None, "", "")
        assert (event.details["route"], event.details["status"]) == ("/admin/", 429)
        assert Event.unscoped.filter(reason="too_many_passwords").count() == refused_passwords


@skip_unless_installed(
    programs={"redis-server": "apt-get install redis-server"},
    modules={"redis": "pip install --require-hashes -r requirements/redis.txt"},
)
def test_two_servers_count_together(staff: User, hold: Path, tmp_path: Path) -> None:
    with (
        redis_server(tmp_path) as redis,
        staff_server(hold, AGS_REDIS_URL=redis.url) as one,
        staff_server(hold, AGS_REDIS_URL=redis.url) as other,
    ):
        servers = (one, other)
        known = read_cookie(post_login(one, "staff", RIGHT), "known_browser")
        for number in range(ADDRESS_MAXIMUM):
            neighbour = f"2001:db8::{number}"
            assert (
                post_login(servers[number % 2], f"user-{number}", WRONG, address=neighbour).status_code == 200
            )
        keys = redis.list_keys()
        statuses = [post_login(each, "staff", RIGHT, address="2001:db8::").status_code for each in servers]
        # On a slow machine, AGS may not wait for Redis: then each server counts by itself.
        if not any('"Redis is unavailable"' in each.log for each in servers):
            assert statuses == [429, 429]
            assert sum("staff_address" in key for key in keys) == 2
            assert sum("staff_username" in key for key in keys) == ADDRESS_MAXIMUM + 1
        assert not any("2001:db8" in key or "user-" in key for key in keys)
        for each in servers:
            assert post_login(each, "staff", RIGHT, address="2001:db8::", cookie=known).status_code == 302
