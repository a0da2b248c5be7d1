"""What several threads want stored at the same time: stored together, and answered each for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db.utils import DataError, OperationalError

from ags.sessions.together import Row, Together
from tests.waiting import PATIENCE, wait_until


class Table:
    """Stands for the database: says what was stored by which statement, each of which waits to be let go."""

    def __init__(self, refuse: Callable[[Sequence[Row]], None] = lambda rows: None) -> None:
        self.statements: list[list[str]] = []
        self.begun = threading.Semaphore(0)
        self.may_go_on = threading.Semaphore(0)
        self._refuse = refuse
        self._together = Together(self._store, lambda: 4)

    def _store(self, rows: Sequence[Row]) -> list[str]:
        self.statements.append([row["name"] for row in rows])
        self.begun.release()
        assert self.may_go_on.acquire(timeout=PATIENCE)
        self._refuse(rows)
        return [f"{row['name']} is stored" for row in rows]

    def wanted(self, pool: ThreadPoolExecutor, *names: str) -> list[Future[Any]]:
        """Have a thread want each of these, in this order, while a statement runs."""
        futures = []
        for name in names:
            waiting = len(self._together._waiting) + 1
            futures.append(pool.submit(self._together.put, {"name": name}))
            if name != "first":
                wait_until(
                    lambda so_many=waiting: len(self._together._waiting) == so_many, "it does not wait"
                )
        return futures


@pytest.fixture
def pool() -> Any:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def behind_the_first(table: Table, pool: ThreadPoolExecutor, *names: str) -> list[Future[Any]]:
    """Want these while the first one is being stored; let all of it go on."""
    futures = table.wanted(pool, "first")
    assert table.begun.acquire(timeout=PATIENCE)
    futures += table.wanted(pool, *names)
    assert not any(future.done() for future in futures), "nobody is answered before the commit"
    table.may_go_on.release(100)
    return futures


def test_who_comes_alone_is_stored_at_once_and_who_comes_meanwhile_together(pool: ThreadPoolExecutor) -> None:
    table = Table()
    futures = behind_the_first(table, pool, "a", "b", "c")
    assert [future.result(PATIENCE) for future in futures] == [
        f"{name} is stored" for name in ("first", "a", "b", "c")
    ]
    assert table.statements == [["first"], ["a", "b", "c"]]


def test_a_statement_takes_no_more_than_it_may_and_the_next_goes_on_in_order(
    pool: ThreadPoolExecutor,
) -> None:
    table = Table()
    names = [f"n{number}" for number in range(10)]
    for future in behind_the_first(table, pool, *names):
        future.result(PATIENCE)
    assert table.statements == [["first"], names[:4], names[4:8], names[8:]]


def test_when_the_database_is_away_everybody_is_told(pool: ThreadPoolExecutor) -> None:
    def refuse(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            raise OperationalError("away") from ValueError("the cause")

    first, *others = behind_the_first(Table(refuse), pool, "a", "b", "c")
    assert first.result(PATIENCE) == "first is stored"
    errors = [future.exception(PATIENCE) for future in others]
    assert [type(error) for error in errors] == [OperationalError] * 3
    assert len(set(map(id, errors))) == 3, "to each its own"
    assert {str(error.__cause__) for error in errors if error} == {"the cause"}


def test_what_is_wrong_with_one_is_no_fault_of_the_others(pool: ThreadPoolExecutor) -> None:
    def refuse(rows: Sequence[Row]) -> None:
        if any(row["name"] == "bad" for row in rows):
            raise DataError("bad")

    _, good, bad, better = behind_the_first(Table(refuse), pool, "good", "bad", "better")
    assert (good.result(PATIENCE), better.result(PATIENCE)) == ("good is stored", "better is stored")
    assert isinstance(bad.exception(PATIENCE), DataError)


def test_a_thread_that_is_ended_leaves_nobody_waiting(pool: ThreadPoolExecutor) -> None:
    def refuse(rows: Sequence[Row]) -> None:
        if len(rows) > 1:
            raise SystemExit

    table = Table(refuse)
    _, ended, other = behind_the_first(table, pool, "a", "b")
    assert isinstance(ended.exception(PATIENCE), SystemExit)
    assert isinstance(other.exception(PATIENCE), OperationalError)
    assert table.wanted(pool, "first")[0].result(PATIENCE) == "first is stored", "and it goes on"


def test_who_has_waited_long_for_a_database_that_is_away_does_not_wait_for_another_statement(
    pool: ThreadPoolExecutor,
) -> None:
    def refuse(rows: Sequence[Row]) -> None:
        raise OperationalError("away")

    table = Table(refuse)
    futures = table.wanted(pool, "first")
    assert table.begun.acquire(timeout=PATIENCE)
    futures += table.wanted(pool, "a", "b")
    for wish in table._together._waiting:
        wish._came -= 10
    futures += table.wanted(pool, "late")
    table.may_go_on.release(100)
    assert all(isinstance(future.exception(PATIENCE), OperationalError) for future in futures)
    assert table.statements == [["first"], ["late"]]
