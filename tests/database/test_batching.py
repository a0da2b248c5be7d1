"""Rows of several requests, written by one statement: each request gets its own outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest
from django.db.utils import DataError, OperationalError

from ags.database import _opened
from ags.database.batching import FAILED_WAIT_LIMIT, Batcher
from ags.database.threads import WAIT_LIMIT, WaitedTooLong


class Table:
    """Stands for the database: records the rows of each statement, which waits until it may go on."""

    is_available = True

    def __init__(
        self,
        reject: Callable[[Sequence[Mapping[str, str]]], None] = lambda rows: None,
        max_batch_size: int = 4,
    ) -> None:
        _opened[asyncio.get_running_loop()] = self  # type: ignore[assignment] # what a Batcher needs of it
        self.max_batch_size = max_batch_size
        self.statements: list[list[str]] = []
        self.may_go_on = asyncio.Event()
        self.batcher = Batcher(self._execute)
        self._reject = reject

    async def _execute(self, rows: Sequence[Mapping[str, str]]) -> list[str]:
        self.statements.append([row["name"] for row in rows])
        await self.may_go_on.wait()
        self._reject(rows)
        return [f"{row['name']} is stored" for row in rows]

    async def submit(self, *names: str) -> list[asyncio.Task[Any]]:
        """Submit these in this order; return when each waits."""
        tasks = [asyncio.create_task(self.batcher.submit({"name": name})) for name in names]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return tasks

    async def submit_behind_the_first(self, *names: str) -> list[asyncio.Task[Any]]:
        """Submit these while the first row is written; then let all statements go on."""
        tasks = await self.submit("first")
        assert self.statements == [["first"]]
        tasks += await self.submit(*names)
        assert not any(task.done() for task in tasks), "no request is answered before the commit"
        self.may_go_on.set()
        return tasks


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_row_that_comes_alone_is_written_at_once_and_those_that_come_meanwhile_together() -> None:
    async def test() -> None:
        table = Table()
        tasks = await table.submit_behind_the_first("a", "b", "c")
        assert await asyncio.gather(*tasks) == [f"{name} is stored" for name in ("first", "a", "b", "c")]
        assert table.statements == [["first"], ["a", "b", "c"]]
        (late,) = await table.submit("late")
        assert await late == "late is stored", "and it goes on"

    run(test())


def test_a_statement_takes_no_more_rows_than_it_may_and_the_next_goes_on_in_order() -> None:
    async def test() -> None:
        table = Table()
        names = [f"n{number}" for number in range(10)]
        await asyncio.gather(*await table.submit_behind_the_first(*names))
        assert table.statements == [["first"], names[:4], names[4:8], names[8:]]

    run(test())


def test_rows_of_a_database_that_takes_one_at_a_time_do_not_wait_for_each_other() -> None:
    async def test() -> None:
        table = Table(max_batch_size=1)
        await table.submit("a", "b")
        assert table.statements == [["a"], ["b"]]
        table.may_go_on.set()

    run(test())


def test_when_the_database_is_not_available_each_request_gets_an_error_of_its_own() -> None:
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


def test_an_error_in_one_row_does_not_affect_the_others() -> None:
    def reject(rows: Sequence[Mapping[str, str]]) -> None:
        if any(row["name"] == "bad" for row in rows):
            raise DataError("bad")

    async def test() -> None:
        _, good, bad, better = await Table(reject).submit_behind_the_first("good", "bad", "better")
        assert [await good, await better] == ["good is stored", "better is stored"]
        with pytest.raises(DataError):
            await bad

    run(test())


def test_the_row_of_a_cancelled_request_is_not_written_and_the_others_are() -> None:
    async def test() -> None:
        table = Table()
        first, gone, other = tasks = [*await table.submit("first"), *await table.submit("gone", "other")]
        first.cancel()  # too late: its statement runs
        gone.cancel()
        await asyncio.sleep(0)
        table.may_go_on.set()
        assert await other == "other is stored"
        assert table.statements == [["first"], ["other"]]
        assert [task.cancelled() for task in tasks] == [True, True, False]

    run(test())


@pytest.mark.parametrize(
    ("limit", "error", "kind"),
    [(WAIT_LIMIT, None, WaitedTooLong), (FAILED_WAIT_LIMIT, OperationalError("failed"), OperationalError)],
)
def test_a_row_that_has_waited_too_long_is_not_written(
    limit: float, error: Exception | None, kind: type[Exception]
) -> None:
    def reject(rows: Sequence[Mapping[str, str]]) -> None:
        if error is not None and rows[0]["name"] == "first":
            raise error

    async def test() -> None:
        table = Table(reject)
        (first,) = await table.submit("first")
        early = await table.submit("a", "b")
        for write in table.batcher._pending:
            write.submitted_at -= limit + 1
        (late,) = await table.submit("late")
        table.may_go_on.set()
        assert await late == "late is stored"
        outcomes = await asyncio.gather(first, *early, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[1:]] == [kind] * 2
        assert (type(outcomes[0]) is OperationalError) == (error is not None)
        assert table.statements == [["first"], ["late"]]

    run(test())
