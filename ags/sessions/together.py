"""Storing together what several threads want stored at the same time: one statement, one flush."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.utils import InterfaceError, OperationalError

LONG = 0.5
"""Seconds. Who has waited longer for a statement that failed then does not wait for another one."""

Row = Mapping[str, Any]
Store = Callable[[Sequence[Row]], Sequence[Any]]


class Together:
    """Gathers rows across threads without a thread of its own, and without ever waiting for more to come.

    Whoever comes while no statement runs stores at once, alone. Who comes meanwhile waits; the first of these
    then stores for all of them. `put` returns when its row is committed, not before.

    `store` gets at most `at_most` rows, and returns what came of each, in their order.
    """

    def __init__(self, store: Store, at_most: Callable[[], int]) -> None:
        self._store = store
        self._at_most = at_most
        self._lock = threading.Lock()
        self._waiting: list[_Wish] = []
        self._running = False

    def put(self, row: Row) -> Any:
        """Return what came of this row. Raises what `store` raises."""
        wish = _Wish(row)
        with self._lock:
            if self._running:
                self._waiting.append(wish)
            else:
                self._running, wish.to_store = True, [wish]
        if not wish.to_store:
            wish.wait()  # until it is stored, or it is its turn to store
        if wish.to_store:
            self._serve(wish.to_store)
        return wish.outcome()

    def _serve(self, wishes: Sequence[_Wish]) -> None:
        try:
            self._fulfil(wishes)
        finally:
            try:
                self._hand_on(wishes[0].error)
            finally:
                for wish in wishes[1:]:
                    wish.wake()

    def _hand_on(self, error: Exception | None) -> None:
        with self._lock:
            if error is not None:
                # Who has waited for a database that does not serve is told so now, and not after a turn more.
                told = [wish for wish in self._waiting if wish.has_waited() > LONG]
                self._waiting = self._waiting[len(told) :]
                for wish in told:
                    wish.error = error
                    wish.wake()
            number = self._at_most()
            wishes, self._waiting = self._waiting[:number], self._waiting[number:]
            self._running = bool(wishes)
        if wishes:
            wishes[0].to_store = wishes
            wishes[0].wake()

    def _fulfil(self, wishes: Sequence[_Wish]) -> None:
        try:
            outcomes = self._store([wish.row for wish in wishes])
        except (OperationalError, InterfaceError) as error:
            for wish in wishes:
                wish.error = error
        except Exception as error:  # noqa: BLE001 - whatever it is, it is raised where it belongs
            # Something is wrong with one of them, which is no fault of the others.
            if len(wishes) == 1:
                wishes[0].error = error
            else:
                for wish in wishes:
                    self._fulfil([wish])
        else:
            for wish, outcome in zip(wishes, outcomes, strict=True):
                wish.error, wish.result = None, outcome


class _Wish:
    """A row that a thread wants stored, and what came of it; `to_store`: with whose, if it is to do that."""

    __slots__ = ("_asleep", "_came", "error", "result", "row", "to_store")

    def __init__(self, row: Row) -> None:
        self.row = row
        self._came = time.monotonic()
        self.to_store: Sequence[_Wish] = ()
        self.error: Exception | None = OperationalError("the thread that was to store this was ended")
        self.result: Any = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wait(self) -> None:
        self._asleep.acquire()

    def has_waited(self) -> float:
        """Return for how many seconds."""
        return time.monotonic() - self._came

    def wake(self) -> None:
        self._asleep.release()

    def outcome(self) -> Any:
        if self.error is not None:
            # Several threads raise it: to each its own, with its own traceback.
            raise copy.copy(self.error) from self.error.__cause__
        return self.result
