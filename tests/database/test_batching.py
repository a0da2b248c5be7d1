"""Batching: one statement writes the rows of several requests, and each request gets its own result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from django.db.utils import DataError, OperationalError

from ags.database import _databases
from ags.database.batching import QUEUE_TIMEOUT_AFTER_FAILURE, Batcher
from ags.database.threads import QUEUE_TIMEOUT, QueueTimeout


class Table:
    """A fake database that records the rows of each statement and blocks it until `may_continue` is set."""

    is_available = True

    def __init__(
        self,
        reject: Callable[[Sequence[Mapping[str, str]]], None] = lambda rows: None,
        max_batch_size: int = 4,
    ) -> None:
        _databases[asyncio.get_running_loop()] = self  # type: ignore[assignment] # all that a Batcher uses
        self.max_batch_size = max_batch_size
        self.statements: list[list[str]] = []
        self.may_continue = asyncio.Event()
        self.batcher = Batcher("test", self._execute)
        self._reject = reject

    async def _execute(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        self.statements.append([row["name"] for row in rows])
        await self.may_continue.wait()
        self._reject(rows)
        return [f"{row['name']} is stored" for row in rows]

    async def submit(self, *names: str) -> list[asyncio.Task[Any]]:
        """Submit rows in this order; return when all of them wait."""
        tasks = [asyncio.create_task(self.batcher.submit({"name": name})) for name in names]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def submit_behind_the_first(self, *names: str) -> list[asyncio.Task[Any]]:
        """Submit rows while the first row is written; then let all statements continue."""
        tasks = await self.submit("first")
        assert self.statements == [["first"]]
        tasks += await self.submit(*names)
        assert not any(task.done() for task in tasks), "a request does not wait for the commit"
        self.may_continue.set()
        return tasks


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_first_row_is_written_immediately_and_later_rows_together() -> None:
    async def test() -> None:
        table = Table()
        tasks = await table.submit_behind_the_first("a", "b", "c")
        assert await asyncio.gather(*tasks) == [f"{name} is stored" for name in ("first", "a", "b", "c")]
        assert table.statements == [["first"], ["a", "b", "c"]]
        (late,) = await table.submit("late")
        assert await late == "late is stored", "batching continues"

    run(test())


def test_batches_are_limited_and_keep_the_order() -> None:
    async def test() -> None:
        table = Table()
        names = [f"n{number}" for number in range(10)]
        await asyncio.gather(*await table.submit_behind_the_first(*names))
        assert table.statements == [["first"], names[:4], names[4:8], names[8:]]

    run(test())


def test_without_batching_rows_do_not_wait_for_each_other() -> None:
    async def test() -> None:
        table = Table(max_batch_size=1)
        await table.submit("a", "b")
        assert table.statements == [["a"], ["b"]]
        table.may_continue.set()

    run(test())


def test_requests_get_separate_copies_of_an_error() -> None:
    def reject(rows: Sequence[Mapping[str, str]]) -> None:
        if len(rows) > 1:
            raise OperationalError("not available") from ValueError("the cause")

    async def test() -> None:
        first, *others = await Table(reject).submit_behind_the_first("a", "b", "c")
        assert await first == "first is stored"
        errors = await asyncio.gather(*others, return_exceptions=True)
        assert [type(error) for error in errors] == [OperationalError] * 3
        assert len(set(map(id, errors))) == 3
        assert {str(error.__cause__) for error in errors} == {"the cause"}

    run(test())


def test_error_in_one_row_does_not_affect_the_others() -> None:
    def reject(rows: Sequence[Mapping[str, str]]) -> None:
        if any(row["name"] == "bad" for row in rows):
            raise DataError("bad")

    async def test() -> None:
        _, good, bad, better = await Table(reject).submit_behind_the_first("good", "bad", "better")
        assert [await good, await better] == ["good is stored", "better is stored"]
        with pytest.raises(DataError):
            await bad

    run(test())


def test_row_of_a_cancelled_request_is_skipped() -> None:
    async def test() -> None:
        table = Table()
        first, cancelled, other = tasks = [
            *await table.submit("first"),
            *await table.submit("cancelled", "other"),
        ]
        first.cancel()  # its statement already runs
        cancelled.cancel()
        await asyncio.sleep(0)
        table.may_continue.set()
        assert await other == "other is stored"
        assert table.statements == [["first"], ["other"]]
        assert [task.cancelled() for task in tasks] == [True, True, False]

    run(test())


@pytest.mark.parametrize(
    ("timeout", "error", "kind"),
    [
        (QUEUE_TIMEOUT, None, QueueTimeout),
        (QUEUE_TIMEOUT_AFTER_FAILURE, OperationalError("failed"), OperationalError),
    ],
)
def test_expired_row_is_not_written(timeout: float, error: Exception | None, kind: type[Exception]) -> None:
    def reject(rows: Sequence[Mapping[str, str]]) -> None:
        if error is not None and rows[0]["name"] == "first":
            raise error

    async def test() -> None:
        table = Table(reject)
        (first,) = await table.submit("first")
        early = await table.submit("a", "b")
        for pending in table.batcher._pending:
            pending.submitted_at -= timeout + 1
        (late,) = await table.submit("late")
        table.may_continue.set()
        assert await late == "late is stored"
        results = await asyncio.gather(first, *early, return_exceptions=True)
        assert [type(result) for result in results[1:]] == [kind] * 2
        assert (type(results[0]) is OperationalError) == (error is not None)
        assert table.statements == [["first"], ["late"]]

    run(test())
