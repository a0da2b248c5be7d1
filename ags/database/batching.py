"""Batching: one statement, and one commit, for the rows of several requests."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar
from weakref import WeakSet

from django.db.utils import InterfaceError, OperationalError

from ags.database import get_database
from ags.database.tasks import complete
from ags.database.threads import QUEUE_TIMEOUT, QueueTimeout

QUEUE_TIMEOUT_AFTER_FAILURE = 0.5
"""Seconds. Replaces QUEUE_TIMEOUT after a failed statement, because the next one is likely to fail, too."""

Execute = Callable[[Sequence[Any]], Coroutine[Any, Any, Sequence[Any]]]

_E = TypeVar("_E", bound=Exception)


class Tracer(Protocol):
    """Assigns the statement of a batch to the requests whose rows it executes."""

    def current(self) -> Any:
        """Return the span of the request that calls this."""

    def use(self, spans: Sequence[Any]) -> AbstractContextManager[None]:
        """Statements in the context are those of these requests."""


batchers: WeakSet[Batcher] = WeakSet()
"""Those of this process."""


class Batcher:
    """Executes rows of several requests together. Rows are collected only while a statement runs.

    `name` is the label of its metrics: `batches` that it has executed, with `rows` in total.

    `execute` is called with up to `max_batch_size` rows, and returns their results in the same order. If it
    raises for several rows, it is called again for each of them, unless the database is not available.
    """

    tracer: ClassVar[Tracer | None] = None

    def __init__(self, name: str, execute: Execute) -> None:
        self.name = name
        self.batches = self.rows = 0
        self._execute = execute
        self._pending: deque[_PendingRow] = deque()
        self._task: asyncio.Task[None] | None = None
        batchers.add(self)

    @property
    def waiting(self) -> int:
        """The number of rows that wait for a statement."""
        return len(self._pending)

    async def submit(self, row: Any) -> Any:
        """Return the result of this row after the commit. Raises the errors of `execute`, and QueueTimeout.

        A row whose caller is cancelled before its statement starts is skipped. Without batching (SQLite, and
        an event loop of one request), it is written nevertheless.
        """
        loop = asyncio.get_running_loop()
        if get_database().max_batch_size == 1:
            self.batches += 1
            self.rows += 1
            # A cancelled request does not stop a statement that has started.
            (result,) = await complete(loop.create_task(self._execute([row])))
            return result
        pending = _PendingRow(row, loop.create_future(), loop.time())
        if self.tracer is not None:
            pending.span = self.tracer.current()
        self._pending.append(pending)
        if self._task is None or self._task.done():
            # A separate task: cancelling one request must not cancel the statement of the others.
            self._task = loop.create_task(self._run())
        return await pending.future

    async def _run(self) -> None:
        while batch := self._next_batch():
            self._fail_expired(await self._execute_batch(batch))

    def _next_batch(self) -> list[_PendingRow]:
        batch: list[_PendingRow] = []
        size = get_database().max_batch_size
        while self._pending and len(batch) < size and not (batch and self._pending[0].is_alone):
            pending = self._pending.popleft()
            if not pending.future.done():
                batch.append(pending)
            if pending.is_alone:
                break
        return batch

    async def _execute_batch(self, batch: Sequence[_PendingRow]) -> Exception | None:
        """Return the error if the database was not available."""
        self.batches += 1
        self.rows += len(batch)
        try:
            rows = [pending.row for pending in batch]
            if self.tracer is None:
                results = await self._execute(rows)
            else:
                with self.tracer.use([pending.span for pending in batch]):
                    results = await self._execute(rows)
            for pending, result in zip(batch, results, strict=True):
                pending.finish(result)
        except Exception as error:  # noqa: BLE001 - raised by `submit`
            is_unavailable = _is_unavailable(error)
            if len(batch) > 1 and not is_unavailable:
                # Only one of the rows may have caused the error: execute each of them separately.
                for pending in batch:
                    pending.is_alone = True
                self._pending.extendleft(reversed(batch))
                return None
            for pending in batch:
                pending.fail(error)
            return error if is_unavailable else None
        return None

    def _fail_expired(self, failure: Exception | None) -> None:
        timeout = QUEUE_TIMEOUT if failure is None else QUEUE_TIMEOUT_AFTER_FAILURE
        oldest = asyncio.get_running_loop().time() - timeout
        while self._pending and self._pending[0].submitted_at < oldest:
            self._pending.popleft().fail(failure or QueueTimeout())


def _is_unavailable(error: Exception) -> bool:
    is_lock_error = getattr(error.__cause__, "sqlstate", None) in {"55P03", "40P01"}  # lock timeout, deadlock
    return isinstance(error, OperationalError | InterfaceError) and not is_lock_error


@dataclass(slots=True, eq=False)
class _PendingRow:
    row: Any
    future: asyncio.Future[Any]
    submitted_at: float
    is_alone: bool = False
    span: Any = None

    def finish(self, result: Any) -> None:
        if not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(copy_exception(error))


def copy_exception(error: _E) -> _E:
    """Return a copy with the same cause: several tasks raise it, and each adds to its traceback."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__
    return copied
