"""The counts of limiters in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ags.limits import Limiter, close_redis, open_redis
from ags.limits.redis import TIMEOUT
from tests.support.markers import skip_unless_installed
from tests.support.upstream.redis_server import RedisServer, redis_server
from tests.support.waiting import PATIENCE

pytestmark = skip_unless_installed(
    programs={"redis-server": "apt-get install redis-server"},
    modules={"redis": "pip install --require-hashes -r requirements/redis.txt"},
)

MAXIMUM = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("redis"))) as running:
        yield running


@pytest.fixture
def run(
    server: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], Awaitable[None]]], None]:
    """Return a function that calls another one in an event loop with Redis, which is empty."""
    settings.AGS_REDIS_URL = server.url
    monkeypatch.setattr("ags.limits.redis.TIMEOUT", 30)  # for a slow machine
    server.client().flushall()

    async def call(function: Callable[[], Awaitable[None]]) -> None:
        open_redis()
        try:
            await function()
        finally:
            await close_redis()

    return lambda function: asyncio.run(call(function))


def stored(server: RedisServer) -> dict[str, tuple[int, int]]:
    """Return the count and the seconds to live of each key."""
    client = server.client()
    return {key: (int(client.get(key)), client.ttl(key)) for key in server.list_keys()}


def test_what_exceeds_the_maximum_is_not_counted(server: RedisServer, run: Any) -> None:
    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        hits = [await limiter.try_hit(MAXIMUM, "nagra", "client") for _ in range(2 * MAXIMUM)]
        assert [bool(hit.remaining) for hit in hits] == [False] * MAXIMUM + [True] * MAXIMUM
        assert [value for value, _ in stored(server).values()] == [MAXIMUM]
        await hits[0].undo()
        assert not (await limiter.try_hit(MAXIMUM, "nagra", "client")).remaining

    run(count)


def test_a_count_that_is_taken_back_late_creates_no_key(server: RedisServer, run: Any) -> None:
    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        hit = await limiter.try_hit(MAXIMUM, "nagra", "client")
        server.client().flushall()  # as if the window had ended
        await hit.undo()
        assert stored(server) == {}

    run(count)


def test_a_count_that_is_taken_back_does_not_prolong_the_window(server: RedisServer, run: Any) -> None:
    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        hit = await limiter.try_hit(MAXIMUM, "nagra", "client")
        (key,) = stored(server)
        server.client().expire(key, 300)
        await hit.undo()
        ((value, ttl),) = stored(server).values()
        assert value == 0
        assert 0 < ttl <= 300

    run(count)


def test_only_what_redis_has_counted_is_taken_back(server: RedisServer, run: Any, settings: Any) -> None:
    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        await limiter.try_hit(MAXIMUM, "nagra", "client")
        await close_redis()
        hit = await limiter.try_hit(MAXIMUM, "nagra", "client")
        open_redis()
        await hit.undo()
        assert [value for value, _ in stored(server).values()] == [1]

    run(count)


def test_a_count_is_taken_back_while_others_use_all_calls(
    server: RedisServer, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ags.limits.redis.MAX_CONNECTIONS", 1)

    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        hit = await limiter.try_hit(MAXIMUM, "nagra", "client")
        await asyncio.gather(limiter.hit(MAXIMUM, "nagra", "other"), hit.undo())
        assert sorted(value for value, _ in stored(server).values()) == [0, 1]

    run(count)


def test_the_first_counts_that_are_not_shared_count_later(server: RedisServer, run: Any) -> None:
    async def count() -> None:
        limiter = Limiter("test", seconds=600, unshared=1)
        remaining = [await limiter.hit(MAXIMUM, "nagra", "client") for _ in range(MAXIMUM + 1)]
        assert [bool(each) for each in remaining] == [False] * MAXIMUM + [True]
        other = Limiter("test", seconds=600, unshared=1)  # of another process
        assert [bool(await other.hit(MAXIMUM, "nagra", "client")) for _ in range(2)] == [False, True]

    run(count)


def test_calls_that_fail_together_are_one_outage(
    server: RedisServer, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("ags.limits.redis.TIMEOUT", TIMEOUT)
    monkeypatch.setattr("ags.limits.redis.PROBE_TIMEOUT", 10 * PATIENCE)  # so that only TIMEOUT ends a call
    caplog.set_level("INFO", "ags.limits")

    async def count() -> None:
        limiter = Limiter("test", seconds=600)
        hits = (limiter.hit(MAXIMUM, "nagra", "client") for _ in range(MAXIMUM + 1))
        remaining = await asyncio.wait_for(asyncio.gather(*hits), PATIENCE)
        assert [bool(each) for each in remaining] == [False] * MAXIMUM + [True], "counted in this process"
        assert await asyncio.wait_for(limiter.hit(MAXIMUM, "nagra", "client"), PATIENCE) > 0

    server.stop()
    try:
        run(count)
    finally:
        server.resume()
    assert [record.message for record in caplog.records] == ["Redis is unavailable"]


def test_a_full_redis_is_available_when_it_accepts_writes(
    server: RedisServer, run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It answers a PING all the time."""
    monkeypatch.setattr("ags.limits.redis.PROBE_INTERVAL", 0.01)
    caplog.set_level("INFO", "ags.limits")

    def messages() -> list[str]:
        return [record.message for record in caplog.records]

    def refused() -> int:
        errors = server.client().info("errorstats").get("errorstat_OOM", {"count": 0})
        return int(errors["count"])

    async def wait_until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.01)

    async def fill_and_free() -> None:
        before = refused()
        server.fill()
        await Limiter("test", seconds=600).hit(MAXIMUM, "nagra", "client")
        await wait_until(lambda: refused() >= before + 3)
        assert messages() == ["Redis is unavailable"]
        server.free()
        await wait_until(lambda: len(messages()) > 1)
        assert messages()[1] == "Redis is available again"

    try:
        run(fill_and_free)
    finally:
        server.free()
