"""A client connection: HTTP/1.1 (RFC 9112) on one side, ASGI on the other.

A request is handed to the application when the whole of it has arrived.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
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

PIPELINE_LIMIT = 12
"""Requests of one read that wait for those before them. After these, the connection ends."""

ASGI = {"version": "3.0", "spec_version": "2.5"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""A client must be able to read it, expected or not (RFC 9110, section 15.2)."""

FRAMING = {b"content-length", b"transfer-encoding"}
SINGLE = FRAMING | {b"expect"}
NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection whose unsent data the system drops."""

STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}

log = logging.getLogger("ags.server")


class Refused(Exception):
    """Raised in what the parser calls, to stop it: the HTTPStatus of a request that is not read further."""


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
    body: bytes | bytearray = field(default_factory=bytearray)
    body_limit: int = 0
    keep_alive: bool = False
    expects_continue: bool = False
    response_head: bytes | None = None

    def release(self) -> None:
        """Buffer the body no longer."""
        self.connection.worker.buffered -= len(self.body)
        self.body = b""

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
            "headers": self.headers,
            "client": self.connection.client,
            "server": self.connection.server,
            "extensions": extensions,
        }

    async def receive(self) -> dict[str, Any]:
        """Return the whole body."""
        self.body = bytes(self.body)
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part of the response. Returns when the client has taken it; raises ConnectionError."""
        if message["type"] == "http.response.start":
            self.response_head = self._head(message)
            return
        transport = self.connection.transport
        if transport.is_closing():
            raise ConnectionResetError
        body = b"" if self.method == "HEAD" else message.get("body", b"")
        transport.writelines([self.response_head or b"", body])
        self.response_head = b""
        await self.connection.writable.wait()

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
        return b"".join([STATUS_LINES[status], self.connection.worker.date, connection, *lines, b"\r\n"])


class Connection(asyncio.Protocol):
    """A connection. Its requests are answered one after the other."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.exchanges: deque[Exchange] = deque()
        self.reading: Exchange | None = None
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.unparsed = 0
        self.ignores_input = self.has_eof = self.has_served = self.is_lingering = False

    # What the loop calls

    def connection_made(self, transport: Any) -> None:
        """Wait for a request."""
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # `pause_writing` as soon as the client does not keep up
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.parser = httptools.HttpRequestParser(self)
        self._expire_in(REQUEST_LIMIT)
        self.worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it, and stop what has not begun."""
        self.worker.remove(self)
        self.deadline = math.inf
        if self.task is not None:
            self.task.cancel()
        self._drop_reading()
        for exchange in self.exchanges:
            exchange.release()

    def data_received(self, data: bytes) -> None:
        """Read requests. Those that are whole are answered."""
        self.unparsed += len(data)
        while data and not self.ignores_input:
            data = self._parse(data)
        if self.unparsed > HEAD_LIMIT and not self.ignores_input:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if len(self.exchanges) > 1:
            self.transport.pause_reading()

    def _parse(self, data: bytes) -> bytes:
        """Feed the parser. Return what another one has to read."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as head:
            # The offer is ignored (RFC 9110, section 7.8), but this parser reads no body after it.
            self.parser = httptools.HttpRequestParser(self)
            headers = self.reading.headers if self.reading is not None else []
            framing = b"".join(b"%b: %b\r\n" % header for header in headers if header[0] in FRAMING)
            return b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, data[head.args[0] :])
        except httptools.HttpParserError as error:
            if not self.ignores_input:
                refused = error.__context__
                self.refuse(refused.args[0] if isinstance(refused, Refused) else HTTPStatus.BAD_REQUEST)
        return b""

    def eof_received(self) -> bool:
        """Answer what has arrived. A request that breaks off is refused.

        A client may have ended only its side, or have gone. If it has gone, its system resets the connection
        when something is written; `expire` looks for that.
        """
        self.has_eof = True
        if self.is_lingering:
            return False
        answering = self.exchanges[0] if self.exchanges else None
        if self.reading is not None:
            self.refuse(HTTPStatus.BAD_REQUEST)
        elif answering is not None and answering.response_head is None and answering.version == "1.1":
            self.transport.write(CONTINUE)
            self._expire_in(0)
        self.ignores_input = True
        return bool(self.exchanges)

    def pause_writing(self) -> None:
        """Give the client its time to take what was written."""
        self.writable.clear()
        self._expire_in(REQUEST_LIMIT)

    def resume_writing(self) -> None:
        """Go on: the client has taken everything."""
        self.writable.set()
        self._expire_in(math.inf if self.exchanges else REQUEST_LIMIT)

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        if self.reading is not None:  # it goes on with another parser
            return
        if len(self.exchanges) == PIPELINE_LIMIT:
            self.exchanges[-1].keep_alive = False
            self.ignores_input = True
        if self.ignores_input:
            raise Refused
        self.reading = Exchange(self)
        if not self.exchanges:
            self._expire_in(REQUEST_LIMIT)

    def on_url(self, url: bytes) -> None:
        """Add to the request target."""
        if self.reading is not None and not self.reading.method:
            self.reading.target += url
            if len(self.reading.target) > TARGET_LIMIT:
                raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is read, and has no effect."""
        exchange = self.reading
        if exchange is None or exchange.method:
            return
        size = len(name) + len(value)
        exchange.head_size += size
        if size > HEADER_LIMIT or exchange.head_size > HEAD_LIMIT or len(exchange.headers) == HEADERS_LIMIT:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        exchange.headers.append((name.lower(), value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Decide how the body is read."""
        exchange = self.reading
        if exchange is None or exchange.method:
            return
        exchange.method, exchange.version = self.parser.get_method().decode(), self.parser.get_http_version()
        exchange.target = _in_origin_form(exchange.target)
        exchange.keep_alive = self.parser.should_keep_alive()
        exchange.body_limit = self.worker.application.body_limit(exchange.path)
        headers = dict(exchange.headers)
        _refuse_unclear(exchange, headers)
        if int(headers.get(b"content-length", b"0")) > exchange.body_limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        exchange.expects_continue = b"expect" in headers and exchange.version == "1.1"
        if not self.exchanges:
            self._send_continue(exchange)

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self.unparsed = 0
        exchange = self.reading
        if exchange is None:
            return
        exchange.body += body
        self.worker.buffered += len(body)
        if len(exchange.body) > exchange.body_limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        if not self.worker.make_room(self):
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE)

    def on_message_complete(self) -> None:
        """Queue a whole request."""
        self.unparsed = 0
        exchange = self.reading
        if exchange is not None and not self.parser.should_upgrade():  # else another parser reads its body
            self.reading = None
            self.ignores_input = not exchange.keep_alive
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

    def _queue(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.task is None:
            self.task = self.worker.loop.create_task(self._answer())

    async def _answer(self) -> None:
        """Answer requests as long as there are any; then wait for the next."""
        while self.exchanges:
            self.deadline = math.inf
            exchange = self.exchanges[0]
            try:
                await self.worker.application(exchange.scope(), exchange.receive, exchange.send)
            except Exception as error:
                if not isinstance(error, ConnectionError):  # else the client has gone
                    log.error("the application failed", exc_info=error)
                self.transport.abort()
            self.exchanges.popleft()
            exchange.release()
            if self.transport.is_closing():
                return
            if not exchange.keep_alive or (self.has_eof and not self.exchanges):
                self.finish()
                return
            self.has_served = True
        self.task = None
        if self.reading is not None:
            self._expire_in(REQUEST_LIMIT)
            self._send_continue(self.reading)
        else:
            self._expire_in(KEEP_ALIVE)
        self.transport.resume_reading()

    def _send_continue(self, exchange: Exchange) -> None:
        if exchange.expects_continue and not exchange.body:
            self.transport.write(CONTINUE)

    # The end

    def expire(self) -> None:
        """End the wait for the client."""
        its = self.transport.get_extra_info("socket")
        if self.is_lingering or not self.writable.is_set():
            its.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        elif self.exchanges:  # `eof_received` has written to it
            self.deadline = math.inf
            if its.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
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


def _refuse_unclear(exchange: Exchange, headers: dict[bytes, bytes]) -> None:
    """Raise Refused for a head that leaves open what is requested, or where the request ends."""
    single = [name for name, _ in exchange.headers if name in SINGLE]
    coding = headers.get(b"transfer-encoding")
    if (
        len(single) != len(set(single))
        or exchange.version not in {"1.0", "1.1"}
        or (exchange.version == "1.0" and coding is not None)
        or exchange.method == "CONNECT"
        or not exchange.target
        or (exchange.target == b"*" and exchange.method != "OPTIONS")
    ):
        raise Refused(HTTPStatus.BAD_REQUEST)
    if coding is not None and coding.lower() != b"chunked":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED)
    if exchange.version == "1.1" and headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise Refused(HTTPStatus.EXPECTATION_FAILED)


def _in_origin_form(target: bytes) -> bytes:
    """Return path and query of a request target (RFC 9112, section 3.2), nothing where it has none."""
    if target.startswith(b"/") or target == b"*":
        return target.partition(b"#")[0]
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b""
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")


def _address(name: Any) -> tuple[str, int | None]:
    """Return an address as ASGI has it. A socket in the file system has a name only, or none."""
    return name[:2] if isinstance(name, tuple) else (str(name or ""), None)
