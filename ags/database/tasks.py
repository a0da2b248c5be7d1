"""Tasks that outlive the request that starts them."""

import asyncio
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
