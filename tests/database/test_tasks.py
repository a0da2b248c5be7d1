"""Statements of requests whose client disconnects: they are completed, and asyncio logs no error."""

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

from ags.database.batching import Batcher
from ags.database.tasks import complete


async def run(is_cancelled: bool) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the steps of a statement that fails, and what asyncio reports."""
    steps: list[str] = []
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    release = asyncio.Event()

    async def execute(_: Sequence[Any]) -> Sequence[Any]:
        steps.append("started")
        await release.wait()
        steps.append("completed")
        raise ValueError

    caller = asyncio.create_task(Batcher(execute).submit(1))
    while not steps:
        await asyncio.sleep(0)
    if is_cancelled:
        caller.cancel()
    release.set()
    await asyncio.wait([caller])
    steps.append("CancelledError" if caller.cancelled() else type(caller.exception()).__name__)
    while len(steps) < 3 or len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0)
    del caller
    gc.collect()
    await asyncio.sleep(0)
    return steps, reported


def test_a_statement_whose_caller_is_cancelled_is_completed_and_its_error_is_not_reported() -> None:
    steps, reported = asyncio.run(run(is_cancelled=True))
    assert sorted(steps) == ["CancelledError", "completed", "started"]
    assert reported == []


def test_an_error_is_raised_to_the_caller() -> None:
    assert asyncio.run(run(is_cancelled=False)) == (["started", "completed", "ValueError"], [])


def test_a_cancelled_task_reports_nothing() -> None:
    async def cancel_both() -> list[dict[str, Any]]:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        task = asyncio.create_task(asyncio.sleep(60))
        caller = asyncio.create_task(complete(task))
        await asyncio.sleep(0)
        caller.cancel()
        task.cancel()
        await asyncio.wait([caller, task])
        return reported

    assert asyncio.run(cancel_both()) == []
