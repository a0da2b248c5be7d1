"""The connection to Redis or Valkey, and what happens while it is unavailable."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from django.conf import settings

if TYPE_CHECKING:
    from limits import RateLimitItem
    from redis.asyncio import ConnectionPool

TIMEOUT = 0.05
"""Seconds for all that a request needs from Redis."""

PROBE_INTERVAL = 1.0
"""Seconds between two attempts to reach Redis while it is unavailable."""

PROBE_TIMEOUT = 2.0
"""Seconds of an attempt, which may need an answer of DNS and a TLS handshake."""

MAX_CONNECTIONS = 16
"""Connections, and so calls at the same time, of a process. With more, the last would exceed `TIMEOUT`."""

KEY_PREFIX = "ags"

UNDO_SCRIPT = """
if tonumber(redis.call("get", KEYS[1]) or 0) > 0 then
    redis.call("decr", KEYS[1])
end
"""
"""Unlike an increment by -1, it creates no key and prolongs no window."""

_T = TypeVar("_T")

log = logging.getLogger("ags.limits")


class RedisUnavailable(Exception):
    """Redis has not counted. The caller uses the count of this process instead."""


class Redis:
    """Counts in Redis, with the library `limits`, for one event loop.

    After a failed call, calls fail at once until a task has reached Redis again.
    """

    def __init__(self, url: str) -> None:
        # Only a process that uses Redis imports them: they take 16 MB.
        from limits import RateLimitItemPerSecond
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import FixedWindowRateLimiter
        from redis.asyncio import Redis as Client

        self._pool = _open_pool(url)
        # The URL with the password is only in the pool.
        self._storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=KEY_PREFIX, connection_pool=self._pool
        )
        self._undo_script = Client(connection_pool=self._pool).register_script(UNDO_SCRIPT)
        self._limiter = FixedWindowRateLimiter(self._storage)
        self._item_type = RateLimitItemPerSecond
        self._calls = 0
        self._probe_task: asyncio.Task[None] | None = None

    async def hit(self, name: str, amount: int, seconds: int, key: Sequence[str], cost: int = 1) -> float:
        """Return the same as `Limiter.hit`. Raises `RedisUnavailable`, after `TIMEOUT` at the latest."""
        item = self._item_type(amount, seconds, name)
        return await self._call(MAX_CONNECTIONS, self._hit, item, key, cost)

    async def undo(self, name: str, amount: int, seconds: int, key: Sequence[str]) -> None:
        """Take back a `hit`, unless its window has ended. Raises as `hit` does."""
        # With the maximum of `hit`, other calls could prevent it, and an accepted password would count.
        await self._call(2 * MAX_CONNECTIONS, self._undo, self._item_type(amount, seconds, name), key)

    async def _call(self, max_calls: int, function: Callable[..., Awaitable[_T]], *args: Any) -> _T:
        if self._probe_task is not None or self._calls >= max_calls:
            raise RedisUnavailable
        self._calls += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                return await function(*args)
        except Exception as error:  # noqa: BLE001 - no request fails because of Redis
            self._begin_outage(error)
            raise RedisUnavailable from None
        finally:
            self._calls -= 1

    async def _hit(self, item: RateLimitItem, key: Sequence[str], cost: int) -> float:
        if await self._limiter.hit(item, *key, cost=cost):
            return 0.0
        window = await self._limiter.get_window_stats(item, *key)
        # A clock that was set back does not prolong a window, and an exceeded limit is never 0.
        return min(max(window.reset_time - time.time(), 0.001), item.get_expiry())

    async def _undo(self, item: RateLimitItem, key: Sequence[str]) -> None:
        await self._undo_script([f"{KEY_PREFIX}:{item.key_for(*key)}"])

    async def close(self) -> None:
        if self._probe_task is not None:
            self._probe_task.cancel()
            await asyncio.wait([self._probe_task])
        await self._pool.disconnect()

    def _begin_outage(self, error: Exception) -> None:
        if self._probe_task is None:  # calls that began earlier fail, too
            # Only the type: the message contains the address of Redis.
            log.warning("Redis is unavailable", extra={"cause": type(error).__qualname__})
            self._probe_task = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        await asyncio.sleep(PROBE_INTERVAL)
        while not await self._is_available():
            await asyncio.sleep(PROBE_INTERVAL)
        log.info("Redis is available again")
        self._probe_task = None

    async def _is_available(self) -> bool:
        """Write, because Redis refuses only that when its memory is full."""
        try:
            for timeout in (PROBE_TIMEOUT, TIMEOUT):  # the first may have to connect
                async with asyncio.timeout(timeout):
                    await self._storage.incr("probe", 1)
        except Exception:  # noqa: BLE001 - with any error, Redis is unavailable
            return False
        return True


def _open_pool(url: str) -> ConnectionPool:
    # The library is optional: `is_client_installed`.
    from redis.asyncio import ConnectionPool

    return ConnectionPool.from_url(
        url, socket_timeout=PROBE_TIMEOUT, socket_connect_timeout=PROBE_TIMEOUT, retry=None
    )


def is_client_installed() -> bool:
    return find_spec("redis") is not None


_open: dict[asyncio.AbstractEventLoop, Redis] = {}
"""By event loop. `runserver` and Django's test clients run each request in a new one, without Redis."""


def open_redis() -> None:
    if settings.AGS_REDIS_URL:
        _open[asyncio.get_running_loop()] = Redis(settings.AGS_REDIS_URL)


async def close_redis() -> None:
    redis = _open.pop(asyncio.get_running_loop(), None)
    if redis is not None:
        await redis.close()


def get_redis() -> Redis | None:
    return _open.get(asyncio.get_running_loop()) if _open else None
