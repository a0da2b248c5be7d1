"""An event loop as that of a worker, in the process of the tests: with threads, and with the database."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import uvloop
from django.db import connections

from ags.asgi import application
from ags.database import close_database, open_database
from ags.database.threads import CONFIGURATION, close_threads, open_threads, run_in_thread
from tests.waiting import PATIENCE


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in the event loop that a worker uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test, PATIENCE))


async def eventually(happens: Callable[[], Any], otherwise: str) -> None:
    """Let the loop go on until `happens` returns true."""
    limit = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < limit, otherwise
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[None]:
    """Give the loop one thread of each kind, and a connection to the database. In the end nothing is left."""
    open_threads(1)
    open_database()
    try:
        yield
    finally:
        await run_in_thread(connections.close_all, pool=CONFIGURATION)
        await close_database()
        close_threads()


def make_scope(method: str, path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """Return the connection scope of a request."""
    return {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "query_string": b"",
        "headers": headers,
        "server": ("localhost", 80),
        "client": ("127.0.0.1", 50000),
    }


async def post(path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Post JSON to the application; return the status and the body of the response."""
    given = {"host": "localhost", "content-type": "application/json", **headers}
    scope = make_scope("POST", path, [(name.encode(), value.encode()) for name, value in given.items()])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])
