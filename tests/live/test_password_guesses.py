"""Guesses of a password at several servers, which count them together through Redis."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tenants.models import Service
from tests.support.clients import ClientApp, HeadEnd
from tests.support.markers import skip_unless_installed
from tests.support.server import ServerProcess
from tests.support.upstream.https import HTTPSServer, ReceivedRequest, Reply, as_json
from tests.support.upstream.redis_server import PASSWORD, RedisServer, redis_server

pytestmark = skip_unless_installed(
    programs={"redis-server": "apt-get install redis-server"},
    modules={"redis": "pip install --require-hashes -r requirements/redis.txt"},
)

GUESSES, THREADS, MAXIMUM = 402, 8, 20
RIGHT = "the password of Anna"
MARKER = "anna-marker0815"


@pytest.fixture
def login() -> Iterator[HTTPSServer]:
    with HTTPSServer() as server:
        server.replies["/login"] = verify_password
        yield server


def verify_password(request: ReceivedRequest) -> Reply:
    if json.loads(request.body)["password"] != RIGHT:
        return as_json({"reason": "invalid_credentials"}, 401)
    return as_json({"accounts": [{"accountId": "account-1", "accountInformation": "Home"}]})


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def gateways(
    transactional_db: None, nagra: HeadEnd, redis: RedisServer, login: HTTPSServer
) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    Service(
        tenant_id=nagra.tenant_id,
        name="Login",
        strategy="operator_login",
        display_name="Login",
        enabled=True,
        settings={"address": f"{login.url}/login", "user": "ags", "secret": "x", **login.settings},
    ).save()
    providers = "providers.operator_token,providers.operator_login"
    with ExitStack() as held:
        one, other = (
            held.enter_context(ServerProcess(AGS_REDIS_URL=redis.url, AGS_PROVIDERS=providers))
            for _ in range(2)
        )
        yield one, other


def sign_on(head_end: HeadEnd, server: ServerProcess, password: str, **device: Any) -> Any:
    app = ClientApp(replace(head_end, client=server))
    parameters = [{"name": "username", "value": MARKER}, {"name": "password", "value": password}]
    members = device or {"deviceInformation": {"deviceType": "Android"}}
    return app.call("/ags/signOn", {"parameters": parameters, **members}, x_auth_service_id="Login")


def test_of_402_guesses_at_most_20_reach_the_endpoint_and_the_device_still_signs_on(
    gateways: tuple[ServerProcess, ServerProcess], nagra: HeadEnd, redis: RedisServer, login: HTTPSServer
) -> None:
    first = sign_on(nagra, gateways[0], RIGHT)
    assert first.status_code == 201
    login.requests.clear()

    def guess(number: int) -> int:
        status: int = sign_on(nagra, gateways[number % 2], f"guess {number}").status_code
        return status

    with ThreadPoolExecutor(THREADS) as pool:
        statuses = Counter(pool.map(guess, range(GUESSES)))
    reached = len(login.requests)
    assert statuses == {401: reached, 429: GUESSES - reached}
    # On a slow machine, AGS may not wait for Redis: then each server counts by itself.
    has_waited = not any('"Redis is unavailable"' in server.log for server in gateways)
    assert reached == MAXIMUM if has_waited else MAXIMUM <= reached <= 2 * MAXIMUM
    device = first.json()["client_id"]
    assert [sign_on(nagra, server, RIGHT, clientId=device).status_code for server in gateways] == [201, 201]
    if has_waited:
        assert {sign_on(nagra, server, RIGHT).status_code for server in gateways} == {429}, "new devices wait"
    for server in gateways:
        assert MARKER not in server.log
        assert PASSWORD not in server.log
    assert not any(MARKER in key for key in redis.list_keys())
