"""Client connections: request limits, and release of buffers when a connection ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvloop

from ags.server.connection import PIPELINE_LIMIT, Connection
from ags.server.exchange import HEAD_LIMIT

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + b"x" * 900
CHUNKS = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n384\r\n" + b"x" * 900
UPGRADE = BODY.replace(b"Host: a", b"Host: a\r\nConnection: upgrade\r\nUpgrade: h2c")
RESET = struct.pack("ii", 1, 0)


class Process:
    """A fake worker and application: echoes bodies and buffers at max_buffered `max_buffered` bytes."""

    def __init__(self) -> None:
        self.buffered = 0
        self.max_buffered = 1 << 20
        self.is_stopping, self.date = False, b""
        self.connections: set[Connection] = set()
        self.remove = self.connections.remove
        self.bodies: list[bytes] = []
        self.loop: Any = None

    def extensions(self) -> dict[str, Any]:
        return {}

    def free_buffer_space(self, reader: Connection) -> bool:
        assert reader in self.connections
        return self.buffered <= self.max_buffered

    @property
    def application(self) -> Any:
        return self

    def body_limit(self, path: str) -> int:
        return 2000

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        error = scope["extensions"].get("ags.refusal", {"status": 200})
        body = (await receive())["body"]
        self.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body))]
        if scope["path"] == "/last":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": error["status"], "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def communicate(process: Process, *parts: bytes, end: str) -> bytes:
    """Send data, end the connection as `end` says, and return the response after the server has closed it."""
    process.loop = asyncio.get_running_loop()
    server = await process.loop.create_server(lambda: Connection(cast(Any, process)), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    for part in parts:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.01)
    received = b""
    if end == "half-close":
        writer.write_eof()
    elif end == "reset":
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()
    elif end == "close":
        writer.close()
    if end in {"half-close", "stay"}:
        with contextlib.suppress(ConnectionError):
            received = await reader.read()
    writer.close()
    while process.connections:
        await asyncio.sleep(0.01)
    server.close()
    return received


def statuses(received: bytes) -> list[int]:
    return [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]]


@pytest.fixture
def process() -> Iterator[Process]:
    process = Process()
    yield process
    assert process.buffered == 0, "a released body is still counted"


ENDS = ["half-close", "reset", "close"]
INPUTS = {
    "a part of a body": [BODY],
    "chunks": [CHUNKS],
    "a part of a body after an upgrade request": [UPGRADE],
    "a request, and a part of a body": [GET + BODY],
    "a last request, and a part of a body": [LAST + BODY],
    "a response that is the last, and a part of a body": [GET.replace(b"/ ", b"/last ") + BODY],
    "an invalid request, and a part of a body": [b"nothing\r\n\r\n" + BODY],
    "a body that is too large": [BODY.replace(b"1000", b"9999"), b"x" * 2000],
    "several bodies": [(BODY + b"x" * 100) * 3 + BODY],
    "a whole body, then a part of one": [BODY, b"x" * 100 + BODY],
    "more requests than may wait": [GET * (PIPELINE_LIMIT + 10) + BODY],
    "empty lines": [b"\r\n" * 10],
    "nothing": [],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("parts", INPUTS.values(), ids=INPUTS)
def test_closed_connection_releases_its_buffers(process: Process, parts: list[bytes], end: str) -> None:
    uvloop.run(communicate(process, *parts, end=end))


def test_incomplete_request_is_rejected_after_earlier_responses(process: Process) -> None:
    received = uvloop.run(communicate(process, GET + BODY, end="half-close"))
    assert statuses(received) == [200, 400]


def test_pipeline_limit_closes_the_connection(process: Process) -> None:
    received = uvloop.run(communicate(process, GET * (PIPELINE_LIMIT + 10), end="stay"))
    assert statuses(received) == [200] * PIPELINE_LIMIT


def test_body_over_the_buffer_limit_is_503(process: Process) -> None:
    process.max_buffered = 100
    assert statuses(uvloop.run(communicate(process, BODY, end="stay"))) == [503]


@pytest.mark.parametrize("data", [b"\r\n", b"a"])
def test_endless_head_is_rejected(process: Process, data: bytes) -> None:
    received = uvloop.run(communicate(process, data * HEAD_LIMIT, data * HEAD_LIMIT, end="stay"))
    assert statuses(received) in ([431], [400])


def test_endless_trailers_are_rejected(process: Process) -> None:
    start = CHUNKS + b"\r\n0\r\n"
    received = uvloop.run(communicate(process, start, b"X: y\r\n" * HEAD_LIMIT, end="stay"))
    assert statuses(received) == [431]


REPEATED_HEADERS = [
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    b"Expect: x\r\nExpect: 100-continue",
]


@pytest.mark.parametrize("lines", REPEATED_HEADERS)
def test_repeated_framing_headers_are_400(process: Process, lines: bytes) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n0\r\n\r\n"
    assert statuses(uvloop.run(communicate(process, request, end="stay"))) == [400]


def test_body_of_an_upgrade_request_is_read(process: Process) -> None:
    received = uvloop.run(communicate(process, UPGRADE, b"y" * 100 + LAST, end="stay"))
    assert statuses(received) == [200, 200]
    assert process.bodies == [b"x" * 900 + b"y" * 100, b""]
