"""Limits that several servers share through Redis, and what happens when Redis fails."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tenants.models import Tenant
from tests.support.clients import HeadEnd
from tests.support.live import use_server, wait_until_served
from tests.support.markers import skip_unless_installed
from tests.support.server import ServerProcess, run_manage
from tests.support.upstream.redis_server import PASSWORD, RedisServer, redis_server
from tests.support.waiting import PATIENCE, wait_until

pytestmark = skip_unless_installed(
    programs={"redis-server": "apt-get install redis-server"},
    modules={"redis": "pip install --require-hashes -r requirements/redis.txt"},
)

MAXIMUM = 6
ADDRESS = "192.0.2.1"
UNAVAILABLE, AVAILABLE = '"Redis is unavailable"', '"Redis is available again"'


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
def limited(transactional_db: None, nagra: HeadEnd) -> HeadEnd:
    """The head-end of a tenant with low limits."""
    Tenant.objects.filter(pk=nagra.tenant_id).update(
        max_failures_per_address=MAXIMUM, max_sign_ons_per_account=MAXIMUM
    )
    return nagra


@contextmanager
def gateway(redis: RedisServer, head_end: HeadEnd, **changes: str) -> Iterator[ServerProcess]:
    """A server whose limits have long windows."""
    changes["DJANGO_SETTINGS_MODULE"] = "tests.live.limits_settings"
    with ServerProcess(
        AGS_REDIS_URL=redis.url, AGS_TRUSTED_PROXIES="1", AGS_LOG_LEVEL="INFO", **changes
    ) as server:
        wait_until_served(server, head_end)
        yield server


@pytest.fixture
def gateways(limited: HeadEnd, redis: RedisServer) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Two servers that share Redis, and wait for it."""
    patience = {"REDIS_TIMEOUT": str(PATIENCE)}
    with gateway(redis, limited, **patience) as one, gateway(redis, limited, **patience) as other:
        yield one, other


def fail(head_end: HeadEnd, address: str = ADDRESS) -> int:
    status: int = head_end.present("x.y.z", x_forwarded_for=address).status_code
    return status


def succeed(head_end: HeadEnd, address: str = ADDRESS) -> int:
    status: int = head_end.present(head_end.token(), x_forwarded_for=address).status_code
    return status


def test_two_servers_count_together(
    gateways: tuple[ServerProcess, ServerProcess], nagra: HeadEnd, redis: RedisServer
) -> None:
    one, other = (use_server(server, nagra) for server in gateways)
    assert [fail(head_end) for head_end in [one, other] * (MAXIMUM // 2)] == [401] * MAXIMUM
    assert [fail(one), fail(one), succeed(one)] == [401, 429, 429]
    assert [succeed(other), fail(other), succeed(other)] == [200, 401, 429]
    assert any(f":address/{nagra.tenant_id}/" in key for key in redis.list_keys())
    assert not any(ADDRESS in key for key in redis.list_keys())
    for server in gateways:
        assert PASSWORD not in server.log


def test_two_servers_count_the_sign_ons_of_an_account_together(
    gateways: tuple[ServerProcess, ServerProcess], nagra: HeadEnd, redis: RedisServer
) -> None:
    one, other = (use_server(server, nagra) for server in gateways)

    def grant(head_end: HeadEnd, account: str) -> int:
        status: int = head_end.present(head_end.token(OpfAccountId=account)).status_code
        return status

    account = "marker-account"
    assert [grant(one, account), grant(other, account)] == [200, 200]
    assert not any(":account/" in key for key in redis.list_keys()), "the first does not need Redis"
    statuses = [grant(head_end, account) for head_end in [one, other] * (MAXIMUM // 2 - 1)]
    assert statuses == [200] * (MAXIMUM - 2), "the first of each server counts with its second"
    assert [grant(one, account), grant(other, account)] == [429, 429]
    assert [grant(one, "another"), grant(other, "another")] == [200, 200]
    assert any(f":account/{nagra.tenant_id}/" in key for key in redis.list_keys())


def kill_and_start(redis: RedisServer) -> Iterator[None]:
    redis.kill()
    yield
    redis.start()


def stop_and_resume(redis: RedisServer) -> Iterator[None]:
    redis.stop()
    yield
    redis.resume()


def fill_and_free(redis: RedisServer) -> Iterator[None]:
    redis.fill()
    yield
    redis.free()


@pytest.mark.parametrize("failure", [kill_and_start, stop_and_resume, fill_and_free])
def test_no_request_fails_when_redis_does(
    limited: HeadEnd, redis: RedisServer, failure: Callable[[RedisServer], Iterator[None]]
) -> None:
    with gateway(redis, limited) as server:
        here = use_server(server, limited)
        addresses = (f"198.51.100.{number}" for number in range(1, 255))
        wait_until(lambda: is_shared(here, next(addresses), redis), "Redis is not used")
        wait_until(lambda: is_available(server), "Redis stays unavailable")
        outages = server.log.count(UNAVAILABLE)
        steps = failure(redis)
        next(steps)
        assert Counter(fail(here, f"203.0.113.{number}") for number in range(50)) == {401: 50}
        assert server.log.count(UNAVAILABLE) == outages + 1
        assert [fail(here) for _ in range(MAXIMUM + 2)] == [401] * (MAXIMUM + 1) + [429]
        assert succeed(here, next(addresses)) == 200
        assert server.log.count(UNAVAILABLE) == outages + 1, "it is logged once"
        assert not is_available(server)
        next(steps, None)
        wait_until(lambda: is_available(server), "Redis is not used again")
        wait_until(lambda: is_shared(here, next(addresses), redis), "failures are not counted in Redis again")
        assert '"status": 5' not in server.log
        assert PASSWORD not in server.log


def is_available(server: ServerProcess) -> bool:
    return server.log.count(UNAVAILABLE) == server.log.count(AVAILABLE)


def is_shared(head_end: HeadEnd, address: str, redis: RedisServer) -> bool:
    """Return True if the failure of another address is counted in Redis."""
    before = set(redis.list_keys())
    assert fail(head_end, address) == 401
    return any(":address/" in key for key in set(redis.list_keys()) - before)


def test_a_server_starts_and_serves_without_redis(
    transactional_db: None, nagra: HeadEnd, redis: RedisServer
) -> None:
    Tenant.objects.filter(pk=nagra.tenant_id).update(max_failures_per_address=MAXIMUM)
    redis.kill()
    with ServerProcess(AGS_REDIS_URL=redis.url, AGS_TRUSTED_PROXIES="1", AGS_LOG_LEVEL="INFO") as server:
        here = replace(nagra, client=server)
        assert (succeed(here), fail(here)) == (200, 401)
        wait_until(lambda: UNAVAILABLE in server.log, "the failure of Redis is not logged")
        redis.start()
        wait_until(lambda: AVAILABLE in server.log, "Redis is not used")
        assert PASSWORD not in server.log


def test_a_missing_client_library_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['redis'] = None\n")
    done = run_manage("check", AGS_REDIS_URL="redis://localhost", PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert "operations.E004" in done.stderr
    assert "Traceback" not in done.stderr
