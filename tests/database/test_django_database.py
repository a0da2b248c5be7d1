"""Transactions on Django's connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import async_to_sync
from django.db import IntegrityError

from ags.database import Transaction
from ags.database.django_database import DjangoDatabase
from ags.database.threads import close_threads, open_threads
from ags.sessions.models import Lease
from tests.support.event_loop import run_in_event_loop
from tests.support.transactions import failing_transaction
from tests.support.waiting import PATIENCE

# Django's connection


@contextlib.asynccontextmanager
async def django_database() -> AsyncIterator[DjangoDatabase]:
    """Yield a DjangoDatabase, on SQLite or PostgreSQL."""
    open_threads(1)
    database = DjangoDatabase()
    try:
        yield database
    finally:
        await database.close()
        close_threads()


async def add(executor: DjangoDatabase | Transaction, *names: str) -> None:
    for name in names:
        statement = "INSERT INTO ags_sessions_lease (name, holder) VALUES (%(name)s, '') RETURNING name"
        assert [*await executor.fetch_all(statement, {"name": name})] == [(name,)]


async def add_in_transaction(database: DjangoDatabase, *names: str) -> None:
    async with database.transaction() as opened:
        await add(opened, *names)


def names() -> set[str]:
    return set(Lease.objects.values_list("name", flat=True))


@pytest.mark.django_db(transaction=True)
def test_django_database_commits_and_rolls_back() -> None:
    async def test() -> None:
        async with django_database() as database:
            await add_in_transaction(database, "a", "b")
            async with failing_transaction(database) as opened:
                await add(opened, "raised")
            with pytest.raises(IntegrityError):
                await add_in_transaction(database, "failed", "a")
            inserted = asyncio.Event()

            async def use() -> None:
                async with database.transaction() as opened:
                    await add(opened, "cancelled")
                    inserted.set()
                    await asyncio.sleep(PATIENCE)

            task = asyncio.create_task(use())
            await inserted.wait()
            task.cancel()
            await add(database, "c")
            assert task.cancelled()

    run_in_event_loop(test())
    assert names() == {"a", "b", "c"}


@pytest.mark.django_db(transaction=True)
def test_django_database_isolates_transactions() -> None:
    async def test() -> None:
        async with django_database() as database:
            async with failing_transaction(database) as opened:
                await add(opened, "a")
                waiting = [
                    asyncio.create_task(add_in_transaction(database, "b", "c")),
                    asyncio.create_task(add(database, "d")),
                ]
                await add(opened, "e", "f", "g")
                assert not any(task.done() for task in waiting)
            await asyncio.gather(*waiting)

    run_in_event_loop(test())
    assert names() == {"b", "c", "d"}


@pytest.mark.django_db(transaction=True)
def test_django_database_cancelled_transaction_is_atomic() -> None:
    async def test() -> None:
        async with django_database() as database:
            for turns in range(30):
                task = asyncio.create_task(add_in_transaction(database, f"a {turns}", f"b {turns}"))
                for _ in range(turns):
                    await asyncio.sleep(0.0001)
                task.cancel()
                await add(database, f"next {turns}")

    run_in_event_loop(test())
    assert names() >= {f"next {turns}" for turns in range(30)}
    assert {name[2:] for name in names() if name[0] == "a"} == {
        name[2:] for name in names() if name[0] == "b"
    }


@pytest.mark.django_db
def test_django_database_transaction_in_an_atomic_block_is_a_savepoint() -> None:
    Lease.objects.create(name="before")
    async_to_sync(add_in_transaction)(DjangoDatabase(), "a", "b")
    with pytest.raises(IntegrityError):
        async_to_sync(add_in_transaction)(DjangoDatabase(), "c", "before")
    assert names() == {"before", "a", "b"}
