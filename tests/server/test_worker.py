"""The event loop of a worker."""

import asyncio
import logging

import pytest

from ags.server.logs import JSONFormatter
from ags.server.worker import log_loop_error

SECRET = "marker-0815"


def test_errors_of_the_event_loop_are_logged_without_their_message(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError(SECRET)

    async def forget() -> None:
        asyncio.get_running_loop().set_exception_handler(log_loop_error)
        task = asyncio.create_task(fail())
        await asyncio.wait([task])
        del task

    asyncio.run(forget())
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.ERROR, "ags.server")
    line = JSONFormatter().format(record)
    assert "Task exception was never retrieved" in line
    assert "ValueError" in line
    assert SECRET not in line.replace("raise ValueError(SECRET)", "")
