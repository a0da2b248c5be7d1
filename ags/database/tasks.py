"""Tasks that outlive the request that starts them, or that no request starts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

_T = TypeVar("_T")


class _Closable(Protocol):
    async def close(self) -> None: ...


_C = TypeVar("_C", bound=_Closable)


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


class PerEventLoop(Generic[_C]):
    """An object for each event loop that serves requests.

    `runserver` and Django's test clients run each request in a new event loop, without such an object.
    """

    def __init__(self, create: Callable[[], _C]) -> None:
        self._create = create
        self.objects: dict[asyncio.AbstractEventLoop, _C] = {}

    def open(self) -> None:
        self.objects[asyncio.get_running_loop()] = self._create()

    async def close(self) -> None:
        closing = self.objects.pop(asyncio.get_running_loop(), None)
        if closing is not None:
            await closing.close()
