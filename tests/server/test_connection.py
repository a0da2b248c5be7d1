"""What a connection holds, and that it holds nothing any more once it has ended, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

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
    """A process that echoes bodies, and has room for so many bytes of them."""

    def __init__(self) -> None:
        self.buffered = 0
        self.most = 1 << 20
        self.is_stopping, self.date = False, b""
        self.connections: set[Connection] = set()
        self.remove = self.connections.remove
        self.bodies: list[bytes] = []
        self.loop: Any = None

    def extensions(self) -> dict[str, Any]:
        return {}

    def make_room(self, reader: Connection) -> bool:
        assert reader in self.connections
        return self.buffered <= self.most

    @property
    def application(self) -> Any:
        return self

    def body_limit(self, path: str) -> int:
        return 2000

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        refusal = scope["extensions"].get("ags.refusal", {"status": 200})
        body = (await receive())["body"]
        self.bodies.append(body)
        headers = [(b"content-length", b"%d" % len(body))]
        if scope["path"] == "/last":
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": refusal["status"], "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def talk(process: Process, *parts: bytes, end: str) -> bytes:
    """Send these, end the connection so, and return what came back; the server has closed it then."""
    process.loop = asyncio.get_running_loop()
    server = await process.loop.create_server(lambda: Connection(process), "127.0.0.1", 0)
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
    assert process.buffered == 0, "a body that nobody has counts"


ENDS = ["half-close", "reset", "close"]
BEGINNINGS = {
    "a part of a body": [BODY],
    "chunks": [CHUNKS],
    "a part of a body after an offer": [UPGRADE],
    "a request, and a part of a body": [GET + BODY],
    "a last request, and a part of a body": [LAST + BODY],
    "a response that is the last, and a part of a body": [GET.replace(b"/ ", b"/last ") + BODY],
    "a refusal, and a part of a body": [b"nothing\r\n\r\n" + BODY],
    "a body that is too large": [BODY.replace(b"1000", b"9999"), b"x" * 2000],
    "bodies one after the other": [(BODY + b"x" * 100) * 3 + BODY],
    "a whole body, then a part of one": [BODY, b"x" * 100 + BODY],
    "more requests than may wait": [GET * (PIPELINE_LIMIT + 10) + BODY],
    "empty lines": [b"\r\n" * 10],
    "nothing": [],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("parts", BEGINNINGS.values(), ids=BEGINNINGS)
def test_nothing_is_held_after_the_end(process: Process, parts: list[bytes], end: str) -> None:
    uvloop.run(talk(process, *parts, end=end))


def test_a_request_that_breaks_off_is_refused_after_those_before_it(process: Process) -> None:
    received = uvloop.run(talk(process, GET + BODY, end="half-close"))
    assert statuses(received) == [200, 400]


def test_more_requests_than_may_wait_end_the_connection(process: Process) -> None:
    received = uvloop.run(talk(process, GET * (PIPELINE_LIMIT + 10), end="stay"))
    assert statuses(received) == [200] * PIPELINE_LIMIT


def test_without_room_a_body_is_refused(process: Process) -> None:
    process.most = 100
    assert statuses(uvloop.run(talk(process, BODY, end="stay"))) == [503]


@pytest.mark.parametrize("data", [b"\r\n", b"a"])
def test_what_never_becomes_a_request_is_bounded(process: Process, data: bytes) -> None:
    received = uvloop.run(talk(process, data * HEAD_LIMIT, data * HEAD_LIMIT, end="stay"))
    assert statuses(received) in ([431], [400])


def test_trailers_without_end_are_bounded(process: Process) -> None:
    start = CHUNKS + b"\r\n0\r\n"
    received = uvloop.run(talk(process, start, b"X: y\r\n" * HEAD_LIMIT, end="stay"))
    assert statuses(received) == [431]


SINGLE = [b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", b"Expect: x\r\nExpect: 100-continue"]


@pytest.mark.parametrize("lines", SINGLE)
def test_a_header_that_decides_about_the_body_comes_once(process: Process, lines: bytes) -> None:
    request = b"POST / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n\r\n0\r\n\r\n"
    assert statuses(uvloop.run(talk(process, request, end="stay"))) == [400]


def test_a_body_after_an_offer_to_upgrade_is_read(process: Process) -> None:
    received = uvloop.run(talk(process, UPGRADE, b"y" * 100 + LAST, end="stay"))
    assert statuses(received) == [200, 200]
    assert process.bodies == [b"x" * 900 + b"y" * 100, b""]
