"""Transactions on a table of numbers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from ags.database import Transaction
from ags.database.django_database import DjangoDatabase
from ags.database.lane import Lane
from tests.support.postgresql import Observer

NEXT, COMMIT_FAILS, COMMIT_WAITS = 999, -1, 0
"""Numbers of rows: of the next statement; for which the commit fails; for which it waits for the lock."""


class Fault(Exception):
    """Raised by tests within a transaction."""


async def insert(executor: Lane | Transaction, *numbers: int) -> None:
    for number in numbers:
        statement = "INSERT INTO numbers VALUES (%(number)s) RETURNING number"
        assert await executor.fetch_all(statement, {"number": number}) == [(number,)]


async def insert_in_transaction(lane: Lane, *numbers: int) -> None:
    async with lane.transaction() as opened:
        await insert(opened, *numbers)


@contextlib.asynccontextmanager
async def failing_transaction(database: Lane | DjangoDatabase) -> AsyncIterator[Transaction]:
    """Open a transaction whose block raises an exception."""
    try:
        async with database.transaction() as opened:
            yield opened
            raise Fault
    except Fault:
        return
    pytest.fail("the exception is lost")


def get_committed(other: Observer) -> list[int]:
    return other.execute("SELECT number FROM numbers ORDER BY number")


async def check_next_statement_commits(lane: Lane, other: Observer) -> None:
    """Check that the next statement on this lane is committed when it returns."""
    before = get_committed(other)
    await insert(lane, NEXT)
    assert get_committed(other) == [*before, NEXT]
    other.execute(f"DELETE FROM numbers WHERE number = {NEXT}")
