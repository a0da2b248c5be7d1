"""The event loop of a worker in the process of the tests, with its threads and its database."""

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
from tests.support.waiting import PATIENCE


def run_in_event_loop(test: Coroutine[Any, Any, None]) -> None:
    """Run a test in an event loop of the type that a worker uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(test, PATIENCE))


async def wait_until_async(happens: Callable[[], Any], otherwise: str) -> None:
    """Let other tasks run until `happens` returns True; fail with `otherwise` after PATIENCE."""
    limit = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < limit, otherwise
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def open_application() -> AsyncIterator[None]:
    """Start one thread of each kind and connect to the database; close everything at the end."""
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


async def post_json(path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
    """Post JSON to the application; return the status and the body of the response."""
    all_headers = {"host": "localhost", "content-type": "application/json", **headers}
    scope = make_scope("POST", path, [(name.encode(), value.encode()) for name, value in all_headers.items()])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])
