"""Executing one statement for rows of several requests: one round trip, and one flush where it writes."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from django.db.utils import InterfaceError, OperationalError

from ags.database import database
from ags.database.threads import WAIT_LIMIT, WaitedTooLong

FAILED_WAIT_LIMIT = 0.5
"""Seconds after which a row no longer waits once a statement has failed: the next is likely to fail, too."""

Execute = Callable[[Sequence[Any]], Awaitable[Sequence[Any]]]

_E = TypeVar("_E", bound=Exception)


class Batcher:
    """Collects rows while a statement runs, and never waits for more to come.

    `execute` gets as many rows as the database takes, and returns the outcome of each, in their order. Where
    it raises for several rows, it is called for each of them alone, unless the database is not available.
    """

    def __init__(self, execute: Execute) -> None:
        self._execute = execute
        self._pending: deque[_PendingRow] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, row: Any) -> Any:
        """Return the outcome of this row, once it is committed. Raises what `execute` raises.

        The row of a request that is cancelled before its statement begins is left out, but where rows are
        executed one by one (SQLite, and an event loop of one request): there, it is written all the same.
        """
        if database().max_batch_size == 1:
            # A statement that has begun goes on where the request is cancelled.
            (outcome,) = await asyncio.shield(asyncio.ensure_future(self._execute([row])))
            return outcome
        loop = asyncio.get_running_loop()
        pending = _PendingRow(row, loop)
        self._pending.append(pending)
        if self._task is None or self._task.done():
            # A task of its own: the cancellation of one request must not end the statement of the others.
            self._task = loop.create_task(self._run())
        return await pending.future

    async def _run(self) -> None:
        while batch := self._next_batch():
            self._fail_late(await self._finish(batch))

    def _next_batch(self) -> list[_PendingRow]:
        batch: list[_PendingRow] = []
        size = database().max_batch_size
        while self._pending and len(batch) < size and not (batch and self._pending[0].is_alone):
            pending = self._pending.popleft()
            if not pending.future.done():
                batch.append(pending)
            if pending.is_alone:
                break
        return batch

    async def _finish(self, batch: Sequence[_PendingRow]) -> Exception | None:
        """Execute a statement for these rows. Return the error if the database was not available."""
        try:
            outcomes = await self._execute([pending.row for pending in batch])
            for pending, outcome in zip(batch, outcomes, strict=True):
                pending.finish(outcome)
        except Exception as error:  # noqa: BLE001 - it is raised where it belongs
            is_away = isinstance(error, OperationalError | InterfaceError) and not _is_of_a_row(error)
            if len(batch) > 1 and not is_away:
                # Something is wrong with one of the rows, which must not affect the others.
                for pending in batch:
                    pending.is_alone = True
                self._pending.extendleft(reversed(batch))
                return None
            for pending in batch:
                pending.fail(error)
            return error if is_away else None
        return None

    def _fail_late(self, failure: Exception | None) -> None:
        """Fail the rows that have waited too long."""
        limit = WAIT_LIMIT if failure is None else FAILED_WAIT_LIMIT
        oldest = asyncio.get_running_loop().time() - limit
        while self._pending and self._pending[0].submitted_at < oldest:
            self._pending.popleft().fail(failure or WaitedTooLong())


def _is_of_a_row(error: Exception) -> bool:
    """Whether a row is locked (55P03), or two statements wait for each other's rows (40P01)."""
    return getattr(error.__cause__, "sqlstate", None) in {"55P03", "40P01"}


class _PendingRow:
    """A row, and the future of its outcome."""

    __slots__ = ("future", "is_alone", "row", "submitted_at")

    def __init__(self, row: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.row = row
        self.is_alone = False
        self.submitted_at = loop.time()
        self.future: asyncio.Future[Any] = loop.create_future()

    def finish(self, outcome: Any) -> None:
        if not self.future.done():
            self.future.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(own_copy(error))


def own_copy(error: _E) -> _E:
    """Return a copy of an error with the same cause, to be raised with a traceback of its own."""
    own = copy.copy(error)
    own.__cause__ = error.__cause__
    return own
