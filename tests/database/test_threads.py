"""Thread pools: which thread makes a call, and that expired and cancelled calls are skipped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator

import pytest
from asgiref.sync import async_to_sync

from ags.database import threads as module
from ags.database.threads import CONFIGURATION, DATABASE, VERIFICATION, QueueTimeout, run_in_thread
from providers.operator_token.strategy import OperatorToken
from tenants.models import Tenant
from tests.support.clients import HeadEnd
from tests.support.event_loop import open_application, post_json, run_in_event_loop, wait_until_async
from tests.support.waiting import PATIENCE


def get_thread_name() -> str:
    return threading.current_thread().name


@contextlib.asynccontextmanager
async def busy_thread() -> AsyncIterator[threading.Event]:
    """Block the only thread for strategies until the event is set."""
    started, may_finish = threading.Event(), threading.Event()

    def wait() -> bool:
        started.set()
        return may_finish.wait(PATIENCE)

    call = asyncio.create_task(run_in_thread(wait, pool=VERIFICATION))
    await wait_until_async(started.is_set, "the call does not start")
    try:
        yield may_finish
    finally:
        may_finish.set()
        assert await call


async def start_tasks() -> None:
    """Let new tasks start."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_loop_without_pools_calls_in_the_thread_of_its_caller(nagra: HeadEnd) -> None:
    def call() -> tuple[int, bool]:
        return threading.get_ident(), Tenant.objects.filter(pk="nagra").exists()

    assert async_to_sync(run_in_thread)(call, pool=VERIFICATION) == (threading.get_ident(), True)


def test_pools_have_separate_threads() -> None:
    async def test() -> None:
        async with open_application(), busy_thread() as may_finish:
            request = asyncio.create_task(run_in_thread(get_thread_name, pool=VERIFICATION))
            for pool in (CONFIGURATION, DATABASE):
                assert await run_in_thread(get_thread_name, pool=pool) == f"{pool}_0"
            assert not request.done()
            may_finish.set()
            assert await request == "verification_0"

    run_in_event_loop(test())


def test_expired_call_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    async def test() -> None:
        async with open_application():
            async with busy_thread() as may_finish:
                late = asyncio.create_task(run_in_thread(calls.append, "late", pool=VERIFICATION))
                await start_tasks()
                with monkeypatch.context() as short:
                    short.setattr(module, "QUEUE_TIMEOUT", -1.0)  # every call has expired
                    may_finish.set()
                    with pytest.raises(QueueTimeout):
                        await late
            await run_in_thread(calls.append, "next", pool=VERIFICATION)
        assert calls == ["next"]

    run_in_event_loop(test())


def test_cancelled_call_is_skipped() -> None:
    calls: list[str] = []

    async def test() -> None:
        async with open_application():
            async with busy_thread() as may_finish:
                cancelled, other = [
                    asyncio.create_task(run_in_thread(calls.append, name, pool=VERIFICATION))
                    for name in ("cancelled", "other")
                ]
                await start_tasks()
                cancelled.cancel()
                await start_tasks()
                may_finish.set()
                await other
            assert cancelled.cancelled()
        assert calls == ["other"]

    run_in_event_loop(test())


@pytest.mark.django_db(transaction=True)
def test_request_that_waits_too_long_for_a_thread_is_503(
    nagra: HeadEnd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(OperatorToken, "blocking", True)
    body = {"parameters": [{"name": "OperatorAuthToken", "value": "token"}]}

    async def test() -> None:
        async with open_application(), busy_thread() as may_finish:
            request = asyncio.create_task(post_json("/ags/getSessionToken", body, nagra.headers()))
            await start_tasks()
            with monkeypatch.context() as short:
                short.setattr(module, "QUEUE_TIMEOUT", -1.0)  # every call has expired
                may_finish.set()
                status, response = await request
            assert (status, response["code"], response["reason"]) == (503, 50300, "unavailable")

    with caplog.at_level(logging.INFO, "ags.request"):
        run_in_event_loop(test())
    assert [record.__dict__["reason"] for record in caplog.records if record.name == "ags.request"] == [
        "waited_too_long"
    ]
