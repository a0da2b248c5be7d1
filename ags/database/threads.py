"""Calls that block, away from the event loop: the ORM, upstreams, and pages of staff."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from asgiref.sync import sync_to_async
from django.db import OperationalError

from ags.database.django_connections import drop_dead_connection

WAIT_LIMIT = 4.0
"""Seconds for which a request waits for its turn, of a thread or of a statement."""

VERIFICATION, STAFF, CONFIGURATION, DATABASE = "verification", "staff", "configuration", "database"
"""The pools of threads. The last two have one thread each, with a connection to the database.

CONFIGURATION: what the ORM reads and stores for the process itself. DATABASE: statements of requests, on
SQLite.
"""

STAFF_THREADS = 3
"""Requests for pages of staff that a process answers at once."""

_T = TypeVar("_T")


class WaitedTooLong(OperationalError):
    """Raised when a request has waited for its turn too long: its client has given up, or soon will."""


_opened: dict[asyncio.AbstractEventLoop, dict[str, ThreadPoolExecutor]] = {}
"""The pools of each event loop, by their names. Each thread keeps its connection to the database."""


def open_threads(verification: int) -> None:
    """Give the running event loop threads of its own, so many for strategies that block."""
    sizes = {VERIFICATION: verification, STAFF: STAFF_THREADS, CONFIGURATION: 1, DATABASE: 1}
    pools = {name: ThreadPoolExecutor(size, name) for name, size in sizes.items()}
    _opened[asyncio.get_running_loop()] = pools


def close_threads() -> None:
    """Have the threads end when they have done what they are doing."""
    for pool in _opened.pop(asyncio.get_running_loop(), {}).values():
        pool.shutdown(wait=False, cancel_futures=True)


async def take_turn(turn: asyncio.Semaphore) -> None:
    """Acquire a semaphore. Raises `WaitedTooLong`."""
    if not turn.locked():  # a time limit would take longer than this
        await turn.acquire()
        return
    try:
        async with asyncio.timeout(WAIT_LIMIT):
            await turn.acquire()
    except TimeoutError:
        raise WaitedTooLong from None


async def run_in_thread(function: Callable[..., _T], *args: Any, pool: str) -> _T:
    """Return what a function returns that blocks. Raises what it raises, and `WaitedTooLong`.

    In an event loop without threads of its own, as that of Django's test client, it is called in the thread
    that called `async_to_sync`: there it sees the transaction of the caller.
    """
    loop = asyncio.get_running_loop()
    pools = _opened.get(loop)
    if pools is None:
        return await sync_to_async(_call, thread_sensitive=True)(function, *args)
    return await loop.run_in_executor(pools[pool], _call_in_time, time.monotonic(), function, *args)


def _call_in_time(submitted_at: float, function: Callable[..., _T], *args: Any) -> _T:
    if time.monotonic() - submitted_at > WAIT_LIMIT:
        raise WaitedTooLong
    return _call(function, *args)


def _call(function: Callable[..., _T], *args: Any) -> _T:
    drop_dead_connection()
    return function(*args)
