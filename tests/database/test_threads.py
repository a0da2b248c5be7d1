"""Calls that block, in threads: which thread makes them, and that none is made in vain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import async_to_sync

from ags.database import threads as module
from ags.database.threads import CONFIGURATION, DATABASE, VERIFICATION, WaitedTooLong, run_in_thread
from providers.operator_token.strategy import OperatorToken
from tenants.models import Tenant
from tests.conftest import HeadEnd
from tests.event_loop import eventually, post, run, serving
from tests.waiting import PATIENCE


def name_of_thread() -> str:
    return threading.current_thread().name


@contextlib.asynccontextmanager
async def thread_is_taken() -> AsyncIterator[threading.Event]:
    """Have the only thread for strategies wait for the event."""
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return may_end.wait(PATIENCE)

    call = asyncio.create_task(run_in_thread(wait, pool=VERIFICATION))
    await eventually(begun.is_set, "the call does not begin")
    try:
        yield may_end
    finally:
        may_end.set()
        assert await call


async def turn() -> None:
    """Let the tasks that have been created begin."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_loop_for_one_request_calls_in_the_thread_and_the_transaction_of_its_caller(nagra: HeadEnd) -> None:
    def call() -> tuple[int, bool]:
        return threading.get_ident(), Tenant.objects.filter(pk="nagra").exists()

    assert async_to_sync(run_in_thread)(call, pool=VERIFICATION) == (threading.get_ident(), True)


def test_each_pool_has_threads_of_its_own_that_wait_for_no_other() -> None:
    async def test() -> None:
        async with serving(), thread_is_taken() as may_end:
            request = asyncio.create_task(run_in_thread(name_of_thread, pool=VERIFICATION))
            for pool in (CONFIGURATION, DATABASE):
                assert await run_in_thread(name_of_thread, pool=pool) == f"{pool}_0"
            assert not request.done()
            may_end.set()
            assert await request == "verification_0"

    run(test())


def test_a_call_that_has_waited_too_long_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    async def test() -> None:
        async with serving():
            async with thread_is_taken() as may_end:
                late = asyncio.create_task(run_in_thread(made.append, "late", pool=VERIFICATION))
                await turn()
                with monkeypatch.context() as short:
                    short.setattr(module, "WAIT_LIMIT", -1.0)  # any time is too long
                    may_end.set()
                    with pytest.raises(WaitedTooLong):
                        await late
            await run_in_thread(made.append, "next", pool=VERIFICATION)
        assert made == ["next"]

    run(test())


def test_the_call_of_a_cancelled_request_is_not_made() -> None:
    made: list[str] = []

    async def test() -> None:
        async with serving():
            async with thread_is_taken() as may_end:
                gone, other = [
                    asyncio.create_task(run_in_thread(made.append, who, pool=VERIFICATION))
                    for who in ("gone", "other")
                ]
                await turn()
                gone.cancel()
                await turn()
                may_end.set()
                await other
            assert gone.cancelled()
        assert made == ["other"]

    run(test())


@pytest.mark.django_db(transaction=True)
def test_a_request_that_has_waited_too_long_for_a_thread_is_refused(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OperatorToken, "blocking", True)
    given = {"parameters": [{"name": "OperatorAuthToken", "value": "token"}]}

    async def test() -> None:
        async with serving(), thread_is_taken() as may_end:
            request = asyncio.create_task(post("/ags/getSessionToken", given, nagra.headers()))
            await turn()
            with monkeypatch.context() as short:
                short.setattr(module, "WAIT_LIMIT", -1.0)  # any time is too long
                may_end.set()
                status, body = await request
            assert (status, body["code"], body["reason"]) == (503, 50300, "unavailable")

    with caplog.at_level(logging.INFO, "ags.request"):
        run(test())
    assert [record.__dict__["reason"] for record in caplog.records if record.name == "ags.request"] == [
        "waited_too_long"
    ]
