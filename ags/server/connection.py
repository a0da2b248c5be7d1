"""A client connection: HTTP/1.1 (RFC 9112) to ASGI. The application is called with complete requests."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools

from ags.server.exchange import HEAD_LIMIT, Exchange, RequestRejected

if TYPE_CHECKING:
    from ags.server.worker import Worker

REQUEST_TIMEOUT = 10.0
"""Seconds from the first byte of a request to its last, and for the client to receive the response."""

KEEP_ALIVE_TIMEOUT = 75.0
"""Seconds for which an idle connection stays open."""

LINGER_TIMEOUT = 1.0
"""Seconds for which the client may still send after the last response.

Closing the connection immediately would reset it, and the client would lose the response.
"""

PIPELINE_LIMIT = 12
"""Maximum number of pipelined requests. The connection is closed after the last of them."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""Clients must accept it even without Expect (RFC 9110, section 15.2)."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER value that discards unsent data and resets the connection."""

log = logging.getLogger("ags.server")


class Connection(asyncio.Protocol):
    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.exchanges: deque[Exchange] = deque()
        self.reading: Exchange | None = None
        self.task: asyncio.Task[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()
        self.unparsed = 0
        self.ignores_input = self.has_eof = self.has_served = self.is_lingering = False

    # Called by the event loop

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=0)  # call `pause_writing` as soon as data is buffered
        self.server = _address(transport.get_extra_info("sockname"))
        self.client = _address(transport.get_extra_info("peername"))
        self.parser = httptools.HttpRequestParser(self)
        self._expire_in(REQUEST_TIMEOUT)
        self.worker.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.worker.remove(self)
        self.deadline = math.inf
        if self.task is not None:
            self.task.cancel()
        self._drop_reading()
        for exchange in self.exchanges:
            exchange.release()

    def data_received(self, data: bytes) -> None:
        self.unparsed += len(data)
        while data and not self.ignores_input:
            data = self._parse(data)
        if self.unparsed > HEAD_LIMIT and not self.ignores_input:
            self.reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        if len(self.exchanges) > 1:
            self.transport.pause_reading()

    def _parse(self, data: bytes) -> bytes:
        """Return the data for another parser, after an upgrade request."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as head:
            # The upgrade is ignored (RFC 9110, section 7.8), but this parser cannot read the body after it.
            self.parser = httptools.HttpRequestParser(self)
            framing = self.reading.framing_headers() if self.reading is not None else b""
            return b"POST / HTTP/1.1\r\n%b\r\n%b" % (framing, data[head.args[0] :])
        except httptools.HttpParserError as error:
            if not self.ignores_input:
                cause = error.__context__
                self.reject(cause.args[0] if isinstance(cause, RequestRejected) else HTTPStatus.BAD_REQUEST)
        return b""

    def eof_received(self) -> bool:
        """The client has closed its sending side or the whole connection.

        In the second case, its system resets the connection after a write; `expire` checks for the reset.
        """
        self.has_eof = True
        if self.is_lingering:
            return False
        current = self.exchanges[0] if self.exchanges else None
        if self.reading is not None:
            self.reject(HTTPStatus.BAD_REQUEST)
        elif current is not None and current.response_head is None and current.version == "1.1":
            self.transport.write(CONTINUE)
            self._expire_in(0)
        self.ignores_input = True
        return bool(self.exchanges)

    def pause_writing(self) -> None:
        self.writable.clear()
        self._expire_in(REQUEST_TIMEOUT)

    def resume_writing(self) -> None:
        self.writable.set()
        self._expire_in(math.inf if self.exchanges else REQUEST_TIMEOUT)

    # Called by the parser

    def on_message_begin(self) -> None:
        if self.reading is not None:  # continued with another parser
            return
        if len(self.exchanges) == PIPELINE_LIMIT:
            self.exchanges[-1].keep_alive = False
            self.ignores_input = True
        if self.ignores_input:
            raise RequestRejected
        self.reading = Exchange(self)
        if not self.exchanges:
            self._expire_in(REQUEST_TIMEOUT)

    def on_url(self, url: bytes) -> None:
        if self.reading is not None and not self.reading.method:
            self.reading.add_target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Trailers are ignored."""
        if self.reading is not None and not self.reading.method:
            self.reading.add_header(name, value)

    def on_headers_complete(self) -> None:
        if self.reading is not None and not self.reading.method:
            self.reading.end_head(self.parser)
            if not self.exchanges:
                self._send_continue(self.reading)

    def on_body(self, body: bytes) -> None:
        self.unparsed = 0
        if self.reading is not None:
            self.reading.add_body(body)
            if not self.worker.free_buffer_space(self):
                raise RequestRejected(HTTPStatus.SERVICE_UNAVAILABLE)

    def on_message_complete(self) -> None:
        self.unparsed = 0
        exchange = self.reading
        # After an upgrade request, another parser reads the body.
        if exchange is not None and not self.parser.should_upgrade():
            self.reading = None
            self.ignores_input = not exchange.keep_alive
            self._queue(exchange)

    def reject(self, status: HTTPStatus) -> None:
        """Reject the request that is being read, after the responses to earlier requests. Stop reading."""
        exchange = self.reading or Exchange(self)
        exchange.keep_alive = False
        self._drop_reading()
        exchange.error_status = status.value
        self._queue(exchange)

    def _drop_reading(self) -> None:
        self.ignores_input = True
        if self.reading is not None:
            self.reading.release()
            self.reading = None

    def _queue(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        if self.task is None:
            self.task = self.worker.loop.create_task(self._process_queue())

    async def _process_queue(self) -> None:
        while self.exchanges:
            self.deadline = math.inf
            exchange = self.exchanges[0]
            try:
                await self.worker.application(exchange.scope(), exchange.receive, exchange.send)
            except Exception as error:
                if not isinstance(error, ConnectionError):  # the client has disconnected
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
            self._expire_in(REQUEST_TIMEOUT)
            self._send_continue(self.reading)
        else:
            self._expire_in(KEEP_ALIVE_TIMEOUT)
        self.transport.resume_reading()

    def _send_continue(self, exchange: Exchange) -> None:
        if exchange.expects_continue and not exchange.body:
            self.transport.write(CONTINUE)

    def expire(self) -> None:
        client_socket = self.transport.get_extra_info("socket")
        if self.is_lingering or not self.writable.is_set():
            client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()
        elif self.exchanges:  # `eof_received` has written to it
            self.deadline = math.inf
            if client_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.transport.abort()
        elif self.reading is not None and self.reading.method:
            self.reject(HTTPStatus.BAD_REQUEST)
        else:
            self.finish()

    def finish(self) -> None:
        """Close the sending side. Discard input until the client closes the connection or LINGER_TIMEOUT."""
        if self.has_eof:
            self.transport.close()
            return
        self.is_lingering = True
        self._drop_reading()
        self._expire_in(LINGER_TIMEOUT)
        self.transport.resume_reading()
        self.transport.write_eof()

    @property
    def is_idle(self) -> bool:
        return self.reading is None and not self.exchanges and not self.is_lingering

    def _expire_in(self, seconds: float) -> None:
        self.deadline = self.worker.loop.time() + seconds


def _address(name: Any) -> tuple[str, int | None]:
    """Return an address in the form of ASGI: (host, port), or (path, None) for a Unix socket."""
    return name[:2] if isinstance(name, tuple) else (str(name or ""), None)
