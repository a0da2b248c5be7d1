"""A client connection: HTTP/1.1 (RFC 9112) on one side, ASGI on the other.

A request is handed to the application when the whole of it has arrived.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import httptools

if TYPE_CHECKING:
    from ags.server.worker import Worker

REQUEST_LIMIT = 10.0
"""Seconds from the first byte of a request to its last, and for a client to take what is sent to it."""

KEEP_ALIVE = 75.0
"""Seconds for which a connection is kept without a request."""

LINGER = 1.0
"""Seconds in which a client may finish sending after the last response of a connection.

Closing at once would reset the connection, and the client would lose the response.
"""

TARGET_LIMIT = 4094
"""Bytes of a request target."""

HEADER_LIMIT = 8190
"""Bytes of a header, name and value."""

HEADERS_LIMIT = 100

HEAD_LIMIT = 64 * 1024
"""Bytes of all headers, and of what the parser may take without coming further."""

PIPELINE_LIMIT = 16
"""Requests of one read that wait for those before them. After these, the connection ends."""

ASGI = {"version": "3.0", "spec_version": "2.5"}
FRAMING = {b"content-length", b"transfer-encoding"}
SINGLE = FRAMING | {b"expect"}
NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection whose unsent data the system drops."""

STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

log = logging.getLogger("ags.server")


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its response: `scope`, `receive` and `send` of ASGI.

    As long as the head is not whole, `method` is empty and `target` is as it was sent; then it is path and
    query, empty where there is no path. `refusal` is the status of what is not read further.
    """

    connection: Connection
    method: str = ""
    version: str = "1.1"
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    head_size: int = 0
    refusal: int | None = None
    body: list[bytes] = field(default_factory=list)
    body_limit: int = 0
    buffered: int = 0
    keep_alive: bool = False
    expects_continue: bool = False
    response: dict[str, Any] | None = None
    is_answered: bool = False

    def add(self, data: bytes) -> None:
        """Buffer a part of the body."""
        self.body.append(data)
        self.buffered += len(data)
        self.connection.worker.buffered += len(data)

    def release(self) -> None:
        """Buffer the body no longer."""
        self.connection.worker.buffered -= self.buffered
        self.body, self.buffered = [], 0

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote_to_bytes(self.target.partition(b"?")[0]).decode(errors="replace")

    def scope(self) -> dict[str, Any]:
        """Return the connection scope of ASGI."""
        raw_path, _, query = self.target.partition(b"?")
        extensions = self.connection.worker.extensions()
        if self.refusal is not None:
            extensions["ags.refusal"] = {"status": self.refusal}
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": self.version,
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": self.headers,
            "client": self.connection.client,
            "server": self.connection.server,
            "extensions": extensions,
        }

    async def receive(self) -> dict[str, Any]:
        """Return the whole body."""
        self.body = [b"".join(self.body)]
        return {"type": "http.request", "body": self.body[0], "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part of the response. Returns when the client has taken it; raises ConnectionError."""
        if message["type"] == "http.response.start":
            self.response = message
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        head, self.response = self.response, None
        parts = [] if head is None else [self._head(head)]
        if self.method != "HEAD":
            parts.append(body)
        await self.connection.write(parts)
        self.is_answered = not more

    def _head(self, response: dict[str, Any]) -> bytes:
        """Return the head. A body whose length is not given ends with the connection."""
        status, headers = response["status"], dict(response["headers"])
        self.keep_alive = (
            self.keep_alive
            and not self.connection.worker.is_stopping
            and (b"content-length" in headers or status in NO_BODY)
            and headers.get(b"connection") != b"close"
        )
        lines = [b"%b: %b\r\n" % header for header in response["headers"] if header[0] != b"connection"]
        connection = b"connection: keep-alive\r\n" if self.keep_alive else b"connection: close\r\n"
        return b"".join([STATUS_LINES[status], _date(int(time.time())), connection, *lines, b"\r\n"])


class Connection(asyncio.Protocol):
    """A connection. Its requests are answered one after the other."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.exchanges: deque[Exchange] = deque()
        self.reading: Exchange | None = None
        self.refusal: HTTPStatus | None = None
        self.task: asyncio.Task[None] | None = None
        self.writable: asyncio.Future[None] | None = None
        self.client: tuple[str, int | None] | None = None
        self.server: tuple[str, int | None] | None = None
        self.deadline = math.inf
        self.unparsed = 0
        self.is_paused = self.is_lingering = self.ignores_input = self.has_eof = self.has_served = False

    # What the loop calls

    def connection_made(self, transport: Any) -> None:
        """Wait for a request."""
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as the client does not keep up
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.parser = httptools.HttpRequestParser(self)
        self._expire_in(REQUEST_LIMIT)
        self.worker.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and stop what has not begun."""
        self.worker.remove(self)
        if self.task is not None:
            self.task.cancel()
        self._drop_reading()
        for exchange in self.exchanges:
            exchange.release()

    def data_received(self, data: bytes) -> None:
        """Read requests. Those that are whole are answered."""
        if self.ignores_input:
            if not self.is_lingering:  # a response is due
                self.transport.pause_reading()
            return
        if self.is_idle and not self.unparsed:
            self._expire_in(REQUEST_LIMIT)
        self.unparsed += len(data)
        while data and self.refusal is None:
            data = self._parse(data)
        if self.refusal is None and self.unparsed > HEAD_LIMIT:
            self.refusal = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if self.refusal is not None:
            self.refuse(self.refusal)
        if len(self.exchanges) > 1:
            self.transport.pause_reading()

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser. Return what another one has to read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as head:
            # The offer is ignored (RFC 9110, section 7.8), but this parser reads no body after it.
            self._replace_parser()
            return data[head.args[0] :]
        except httptools.HttpParserError:
            if self.reading is None and self.exchanges and not self.exchanges[-1].keep_alive:
                self.ignores_input = True  # it follows a last request
            else:
                self.refusal = self.refusal or HTTPStatus.BAD_REQUEST
        return b""

    def _replace_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        headers = self.reading.headers if self.reading is not None else []
        framing = b"".join(b"%b: %b\r\n" % header for header in headers if header[0] in FRAMING)
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % framing)

    def eof_received(self) -> bool:
        """Answer what has arrived. A request that breaks off is refused."""
        self.has_eof = True
        if self.reading is not None and not self.ignores_input:
            self.refuse(HTTPStatus.BAD_REQUEST)
        self.ignores_input = True
        return bool(self.exchanges)

    def pause_writing(self) -> None:
        """Give the client its time to take what was written."""
        self.is_paused = True
        self._expire_in(REQUEST_LIMIT)

    def resume_writing(self) -> None:
        """Go on: the client has taken everything."""
        self.is_paused = False
        self._expire_in(math.inf if self.exchanges else REQUEST_LIMIT)
        if self.writable is not None and not self.writable.done():
            self.writable.set_result(None)

    # What the parser calls. After a refusal it goes on to the end of the data, and nothing of that counts.

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.reading is not None:  # it goes on with another parser
            return
        if len(self.exchanges) == PIPELINE_LIMIT:
            self.exchanges[-1].keep_alive = False
            self.ignores_input = True
        if self.refusal is None and not self.ignores_input:
            self.reading = Exchange(self)

    def on_url(self, url: bytes) -> None:
        """Add to the request target."""
        if self.reading is not None and not self.reading.method:
            self.reading.target += url
            if len(self.reading.target) > TARGET_LIMIT:
                self._refuse_later(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is read, and has no effect."""
        exchange = self.reading
        if exchange is None or exchange.method:
            return
        exchange.head_size += len(name) + len(value)
        if (
            len(name) + len(value) > HEADER_LIMIT
            or len(exchange.headers) == HEADERS_LIMIT
            or exchange.head_size > HEAD_LIMIT
        ):
            self._refuse_later(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            exchange.headers.append((_lower(name), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide how the body is read."""
        exchange = self.reading
        if exchange is None or exchange.method or self.refusal is not None:
            return
        exchange.method, exchange.version = self.parser.get_method().decode(), self.parser.get_http_version()
        exchange.target = _in_origin_form(exchange.target)
        exchange.keep_alive = self.parser.should_keep_alive()
        exchange.body_limit = self.worker.application.body_limit(exchange.path)
        headers = dict(exchange.headers)
        self.refusal = _refusal_status(exchange, headers)
        if int(headers.get(b"content-length", b"0")) > exchange.body_limit:
            self._refuse_later(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        exchange.expects_continue = b"expect" in headers and exchange.version == "1.1"
        if self.refusal is None and not self.exchanges:
            self._send_continue(exchange)

    def on_chunk_header(self) -> None:
        """Note that the body goes on."""
        self.unparsed = 0

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self.unparsed = 0
        exchange = self.reading
        if exchange is None or self.refusal is not None:
            return
        exchange.add(body)
        if exchange.buffered > exchange.body_limit:
            self._refuse_later(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        elif not self.worker.make_room():
            self._refuse_later(HTTPStatus.SERVICE_UNAVAILABLE)

    def on_message_complete(self) -> None:
        """Queue a whole request."""
        self.unparsed = 0
        exchange = self.reading
        if exchange is None or self.refusal is not None:
            return
        if not self.parser.should_upgrade():  # or another parser reads the body first
            self.reading = None
            self._queue(exchange)

    # Requests and responses

    def refuse(self, status: HTTPStatus) -> None:
        """Refuse the request that is being read, once those before it are answered, and read no further."""
        exchange = self.reading or Exchange(self)
        exchange.keep_alive = False
        self._drop_reading()
        exchange.refusal = status.value
        self._queue(exchange)

    def _drop_reading(self) -> None:
        self.ignores_input = True
        if self.reading is not None:
            self.reading.release()
            self.reading = None

    def _refuse_later(self, status: HTTPStatus) -> None:
        self.refusal = self.refusal or status

    def _queue(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.task is None:
            self._start(exchange)

    def _start(self, exchange: Exchange) -> None:
        self.deadline = math.inf
        self.task = self.worker.loop.create_task(self._answer(exchange))

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self.worker.application(exchange.scope(), exchange.receive, exchange.send)
        except ConnectionError:
            self.transport.abort()  # the client has gone
        except Exception as error:
            log.error("the application failed", exc_info=error)
        self.task = None
        self.exchanges.popleft()
        exchange.release()
        if not exchange.is_answered:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._go_on(exchange)

    def _go_on(self, answered: Exchange) -> None:
        """Answer the next request, or wait for it."""
        if not answered.keep_alive or (self.has_eof and not self.exchanges):
            self.finish()
            return
        self.has_served = True
        self.worker.note_progress(self)
        if self.exchanges:
            self._start(self.exchanges[0])
        elif self.reading is not None:
            self._expire_in(REQUEST_LIMIT)
            self._send_continue(self.reading)
        else:
            self._expire_in(KEEP_ALIVE)
        if len(self.exchanges) < 2 and not self.ignores_input:
            self.transport.resume_reading()

    def _send_continue(self, exchange: Exchange) -> None:
        if exchange.expects_continue and not exchange.buffered:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        exchange.expects_continue = False

    async def write(self, parts: list[bytes]) -> None:
        """Write, and return when the client has taken it. Raises ConnectionError when it has gone."""
        if self.transport.is_closing():
            raise ConnectionResetError
        self.transport.writelines(parts)
        if self.is_paused:
            self.writable = self.worker.loop.create_future()
            await self.writable

    # The end

    def expire(self) -> None:
        """End the wait for the client."""
        if self.is_paused or self.is_lingering:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        elif self.reading is not None and self.reading.method:
            self.refuse(HTTPStatus.BAD_REQUEST)
        else:
            self.finish()

    def finish(self) -> None:
        """Send no more. Drop what the client still sends, until it hangs up or `LINGER` is over."""
        if self.has_eof:
            self.transport.close()
            return
        self.is_lingering = True
        self._drop_reading()
        self._expire_in(LINGER)
        self.transport.resume_reading()
        self.transport.write_eof()

    @property
    def is_idle(self) -> bool:
        """Whether it is kept without a request."""
        return self.reading is None and not self.exchanges and not self.is_lingering

    def _expire_in(self, seconds: float) -> None:
        self.deadline = self.worker.loop.time() + seconds


def _refusal_status(exchange: Exchange, headers: dict[bytes, bytes]) -> HTTPStatus | None:
    """Return the status for a head that leaves open what is requested, or where the request ends."""
    single = [name for name, _ in exchange.headers if name in SINGLE]
    coding = headers.get(b"transfer-encoding")
    is_ambiguous = (
        len(single) != len(set(single))
        or exchange.version not in {"1.0", "1.1"}
        or (exchange.version == "1.0" and coding is not None)
        or exchange.method == "CONNECT"
        or not exchange.target
        or (exchange.target == b"*" and exchange.method != "OPTIONS")
    )
    if is_ambiguous:
        return HTTPStatus.BAD_REQUEST
    if coding is not None and coding.lower() != b"chunked":
        return HTTPStatus.NOT_IMPLEMENTED
    if exchange.version == "1.1" and headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        return HTTPStatus.EXPECTATION_FAILED
    return None


def _in_origin_form(target: bytes) -> bytes:
    """Return path and query of a request target (RFC 9112, section 3.2), nothing where it has none."""
    if target.startswith(b"/") or target == b"*":
        return target.partition(b"#")[0]
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b""
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")


def _address(name: Any) -> tuple[str, int | None] | None:
    """Return an address as ASGI has it. A socket in the file system has a name only."""
    if isinstance(name, tuple):
        return name[0], name[1]
    return (str(name), None) if name else None


_lower = lru_cache(maxsize=256)(bytes.lower)


@lru_cache(maxsize=1)
def _date(second: int) -> bytes:
    """Return the header, which is the same for many responses."""
    return f"date: {formatdate(second, usegmt=True)}\r\n".encode()
