"""Tasks that outlive a request: they are completed, and asyncio logs no error. Periodic tasks."""

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

from ags.database.batching import Batcher
from ags.database.tasks import PeriodicTask, complete
from tests.support.event_loop import wait_until_async


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

    caller = asyncio.create_task(Batcher("test", execute).submit(1))
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


def test_a_periodic_task_is_called_at_once_regularly_and_when_it_is_closed() -> None:
    calls: list[bool] = []

    async def test() -> None:
        async def call() -> None:
            calls.append(task.is_closing)

        task = PeriodicTask(call, 0.001)
        await wait_until_async(lambda: len(calls) >= 3, "it is not called again")
        await task.close(60)

    asyncio.run(test())
    assert calls == [False] * (len(calls) - 1) + [True]


def test_a_periodic_task_that_is_closed_during_a_call_is_called_once_more() -> None:
    calls: list[bool] = []

    async def test() -> None:
        release = asyncio.Event()

        async def call() -> None:
            calls.append(task.is_closing)
            await release.wait()

        task = PeriodicTask(call, 3600)
        await wait_until_async(lambda: calls, "it is not called")
        closing = asyncio.create_task(task.close(60))
        await wait_until_async(lambda: task.is_closing, "it is not closing")
        release.set()
        await closing

    asyncio.run(test())
    assert calls == [False, True]


def test_closing_a_periodic_task_does_not_wait_for_a_call_that_hangs() -> None:
    async def test() -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        await PeriodicTask(hang, 3600).close(0.01)

    asyncio.run(test())
