"""Thread pools for blocking calls: the ORM, upstreams and staff pages."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, sync_to_async
from django.db import OperationalError

from ags.database.django_connections import close_broken_connection

QUEUE_TIMEOUT = 4.0
"""Seconds for which a request waits for a thread or for the previous statements."""

VERIFICATION, STAFF, CONFIGURATION, DATABASE = "verification", "staff", "configuration", "database"
"""Names of the thread pools. The last two have one thread each, with a database connection.

CONFIGURATION: reads and writes of the process itself with the ORM. DATABASE: statements of requests on
SQLite.
"""

STAFF_THREADS = 3
"""Requests for staff pages that a process handles concurrently."""

_T = TypeVar("_T")


class QueueTimeout(OperationalError):
    """A request has waited in a queue for QUEUE_TIMEOUT; its client has probably timed out."""


_pools: dict[asyncio.AbstractEventLoop, dict[str, ThreadPoolExecutor]] = {}
"""The pools of each event loop by name. Each thread has a persistent database connection."""

_sizes: dict[str, int] = {}
"""The number of threads of each pool."""

_calls: dict[str, int] = {}
"""The calls that wait for a thread of each pool, or that a thread executes."""

_waiting = {"database": 0}
"""Callers of `acquire` that wait."""

_copies_context = False

_this_thread = threading.local()
"""`loop`: the event loop whose pool the thread belongs to."""


def open_threads(verification: int, *, copies_context: bool = False) -> None:
    """`verification`: threads for blocking strategies. `copies_context`: for all functions that they call."""
    global _copies_context  # noqa: PLW0603
    _copies_context = copies_context
    sizes = {VERIFICATION: verification, STAFF: STAFF_THREADS, CONFIGURATION: 1, DATABASE: 1}
    _sizes.update(sizes)
    loop = asyncio.get_running_loop()
    _pools[loop] = {name: ThreadPoolExecutor(size, name, _set_loop, (loop,)) for name, size in sizes.items()}


def _set_loop(loop: asyncio.AbstractEventLoop) -> None:
    _this_thread.loop = loop


def close_threads() -> None:
    for pool in _pools.pop(asyncio.get_running_loop(), {}).values():
        pool.shutdown(wait=False, cancel_futures=True)


async def acquire(semaphore: asyncio.Semaphore) -> None:
    """Acquire the semaphore of a database connection. Raises QueueTimeout."""
    if not semaphore.locked():  # avoids the cost of asyncio.timeout
        await semaphore.acquire()
        return
    _waiting["database"] += 1
    try:
        async with asyncio.timeout(QUEUE_TIMEOUT):
            await semaphore.acquire()
    except TimeoutError:
        raise QueueTimeout from None
    finally:
        _waiting["database"] -= 1


async def run_in_thread(function: Callable[..., _T], *args: Any, pool: str) -> _T:
    """Call a blocking function. Raises QueueTimeout.

    In an event loop without pools (Django's test client), it runs in the thread that called `async_to_sync`,
    so that it sees the caller's transaction.
    """
    loop = asyncio.get_running_loop()
    pools = _pools.get(loop)
    if pools is None:
        return await sync_to_async(_call, thread_sensitive=True)(function, *args)
    if _copies_context:
        function = partial(copy_context().run, function)
    _calls[pool] = _calls.get(pool, 0) + 1
    try:
        return await loop.run_in_executor(
            pools[pool], _call_unless_expired, time.monotonic(), function, *args
        )
    finally:
        _calls[pool] -= 1


def waiting_calls() -> dict[str, int]:
    """Return how many calls wait for a thread of each pool, and for a connection of the `database`."""
    return _waiting | {pool: max(number - _sizes[pool], 0) for pool, number in _calls.items()}


def run_in_event_loop(function: Callable[..., Coroutine[Any, Any, _T]], *args: Any) -> _T:
    """Call a coroutine function from a thread of a pool, in the event loop of the pool. Raises QueueTimeout.

    In other threads (`runserver`, Django's test client), it runs in an event loop of its own.
    """
    loop = getattr(_this_thread, "loop", None)
    if loop is None:
        return async_to_sync(function)(*args)
    future = asyncio.run_coroutine_threadsafe(function(*args), loop)
    try:
        return future.result(QUEUE_TIMEOUT)
    except TimeoutError:
        future.cancel()
        raise QueueTimeout from None


def _call_unless_expired(submitted_at: float, function: Callable[..., _T], *args: Any) -> _T:
    if time.monotonic() - submitted_at > QUEUE_TIMEOUT:
        raise QueueTimeout
    return _call(function, *args)


def _call(function: Callable[..., _T], *args: Any) -> _T:
    close_broken_connection()
    return function(*args)
