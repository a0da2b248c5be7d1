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
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import httptools

from ags.server.exchange import HEAD_LIMIT, Exchange, Refused

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

PIPELINE_LIMIT = 12
"""Requests of one read that wait for those before them. After these, the connection ends."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""A client must be able to read it, expected or not (RFC 9110, section 15.2)."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of a connection whose unsent data the system drops."""

log = logging.getLogger("ags.server")


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
            framing = self.reading.framing() if self.reading is not None else b""
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
            self.reading.add_target(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add a header. A trailer is read, and has no effect."""
        if self.reading is not None and not self.reading.method:
            self.reading.add_header(name, value)

    def on_headers_complete(self) -> None:
        """Wait for the body."""
        if self.reading is not None and not self.reading.method:
            self.reading.end_head(self.parser)
            if not self.exchanges:
                self._send_continue(self.reading)

    def on_body(self, body: bytes) -> None:
        """Add to the body."""
        self.unparsed = 0
        if self.reading is not None:
            self.reading.add_body(body)
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


def _address(name: Any) -> tuple[str, int | None]:
    """Return an address as ASGI has it. A socket in the file system has a name only, or none."""
    return name[:2] if isinstance(name, tuple) else (str(name or ""), None)
