"""Tasks that outlive the request that starts them, or that no request starts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


async def complete(task: asyncio.Task[_T]) -> _T:
    """Return the result of a task that is completed even if its caller is cancelled."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_retrieve_exception)
        raise


def _retrieve_exception(task: asyncio.Task[Any]) -> None:
    """Otherwise asyncio logs an exception that nobody has retrieved, with its message."""
    if not task.cancelled():
        task.exception()


class PeriodicTask:
    """Calls a function that raises nothing: now, every `interval` seconds, and when it is closed."""

    def __init__(self, function: Callable[[], Awaitable[None]], interval: float) -> None:
        self._function = function
        self._interval = interval
        self._closing = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def is_closing(self) -> bool:
        """Whether the current call of the function is the last one."""
        return self._closing.is_set()

    async def close(self, timeout: float) -> None:
        """`timeout`: seconds for the current and the last call."""
        self._closing.set()
        completed, _ = await asyncio.wait([self._task], timeout=timeout)
        if not completed:
            self._task.cancel()
            await asyncio.wait([self._task], timeout=1.0)

    async def _run(self) -> None:
        while not self.is_closing:
            await self._function()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._closing.wait()
        await self._function()
