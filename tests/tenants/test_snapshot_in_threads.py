"""Threads share what one of them reads into the snapshot."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import OperationalError, connection

from tenants.snapshot import snapshot
from tenants.tenant_snapshot import TenantSnapshot
from tests.support.clients import HeadEnd
from tests.support.snapshot import Clock, WaitingThreads, get_tenant, read_versions, rename
from tests.support.waiting import PATIENCE, wait_until


def run_concurrently(number: int, work: Callable[[], None]) -> None:
    """Run `work` in that many threads at the same time, each with its own connection."""
    barrier = threading.Barrier(number)

    def begin() -> None:
        barrier.wait(PATIENCE)
        try:
            work()
        finally:
            connection.close()

    with ThreadPoolExecutor(number) as pool:
        for thread in [pool.submit(begin) for _ in range(number)]:
            thread.result(PATIENCE)


class UnavailableDatabase:
    """Fails each statement once `others` threads wait, and counts the statements."""

    def __init__(self, waiting: WaitingThreads, others: int) -> None:
        self.statements = 0
        self.errors: list[Exception] = []
        self._waiting, self._others = waiting, others

    def __call__(self, *_: Any) -> Any:
        self.statements += 1
        wait_until(self._others_wait, "the other threads do not wait")
        raise OperationalError("unavailable")

    def _others_wait(self) -> bool:
        # The thread that runs the statement is at the lock too.
        return max(len(self._waiting.at_the_lock) - 1, len(self._waiting.at_a_load)) == self._others

    def read(self) -> None:
        try:
            with connection.execute_wrapper(self):
                snapshot.get_tenant("nagra")
        except OperationalError as error:
            self.errors.append(error)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_threads_with_the_same_stale_tenant_load_it_once(
    nagra: HeadEnd, clock: Clock, waiting: WaitingThreads
) -> None:
    old = get_tenant()
    rename()
    statements: list[str] = []
    seen: list[TenantSnapshot | None] = []
    waiting.at_the_lock.clear()

    def slowly(execute: Any, sql: str, *arguments: Any) -> Any:
        statements.append(sql)
        if len(statements) == 1:
            wait_until(lambda: len(waiting.at_the_lock) == 8, "not all threads read the versions")
        elif len(statements) == 2:
            wait_until(lambda: len(waiting.at_a_load) == 7, "not all other threads wait for the tenant")
        return execute(sql, *arguments)

    def reload() -> None:
        with connection.execute_wrapper(slowly):
            snapshot.invalidate("nagra", old, rejected_at)
            seen.append(snapshot.get_tenant("nagra"))

    rejected_at = clock.monotonic()
    run_concurrently(8, reload)
    assert [tenant.version for tenant in seen if tenant] == [old.version + 1] * 8
    assert [table_of(sql) for sql in statements] == [
        "tenant",  # the versions
        "tenant",
        "key",
        "service",
        "signingkey",
        "resourceserver",
    ]


def table_of(sql: str) -> str:
    return sql.partition('FROM "tenants_')[2].partition('"')[0]


def test_versions_from_before_a_rejection_are_read_again(nagra: HeadEnd) -> None:
    old = get_tenant()
    read_versions()
    rename()
    snapshot.invalidate("nagra", old, time.monotonic())
    assert get_tenant().version == old.version + 1


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("versions_are_cached", [True, False])
def test_waiting_threads_share_the_failure_of_a_load(
    nagra: HeadEnd, clock: Clock, waiting: WaitingThreads, versions_are_cached: bool
) -> None:
    if versions_are_cached:
        read_versions()
        waiting.at_the_lock.clear()
    unavailable = UnavailableDatabase(waiting, 3)
    run_concurrently(4, unavailable.read)
    assert len({id(error) for error in unavailable.errors}) == 4, "each thread has its own exception"
    assert unavailable.statements == 1
    assert get_tenant().id == "nagra", "a later call queries again"


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_slow_load_does_not_restore_an_older_version(nagra: HeadEnd) -> None:
    read_versions()
    changed = False

    def change_concurrently(execute: Any, sql: str, *arguments: Any) -> Any:
        nonlocal changed
        if 'FROM "tenants_key"' in sql and not changed:
            changed = True
            with ThreadPoolExecutor() as pool:
                pool.submit(change).result(PATIENCE)
        return execute(sql, *arguments)

    def change() -> None:
        rename()
        read_versions()
        connection.close()

    with connection.execute_wrapper(change_concurrently):
        old = get_tenant()
    assert get_tenant().version == old.version + 1
