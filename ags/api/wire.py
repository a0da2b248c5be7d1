"""The wire of the production server: gunicorn's connections, requests and answers, with our manners.

Importing it puts these in the place of gunicorn's own; it has no settings for what they do.
"""

from __future__ import annotations

import socket
import struct
import time
import uuid
from functools import lru_cache
from typing import Any

import gunicorn.http.parser
import gunicorn.http.wsgi
import gunicorn.util
from django.conf import settings
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.message import Request
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import Response
from gunicorn.workers import gthread

from ags.api.errors import ApiError, bare, respond
from ags.api.record import Record

REQUEST_LIMIT = 10.0
"""Seconds in which a client must have sent a request, head and body, and in which it must take each write."""

STAY = 0.02
"""Seconds for which a thread waits for a client by one call of the kernel's.

So long it also stays with a connection for the next request.
"""

SENT_AT_ONCE = 32 * 1024
"""Bytes of an answer that the kernel takes without waiting for the client."""

HEAD_LIMIT = 64 * 1024
"""Bytes that the headers of a request have at most, together."""

DRAIN_LIMIT = 32 * 1024
"""Bytes of an unread body that are worth reading to keep the connection."""


class Wire(socket.socket):
    """A socket that leaves to the kernel what it can: each call that Python has to wait for, costs a turn."""

    def setblocking(self, flag: bool) -> None:
        """Change it where it is not so already."""
        if self.gettimeout() != (None if flag else 0.0):
            super().setblocking(flag)

    def limit(self, option: int, seconds: float) -> None:
        """Bound each SO_RCVTIMEO or SO_SNDTIMEO while blocking; what lasts longer is a BlockingIOError."""
        whole, rest = divmod(seconds, 1)
        self.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", int(whole), int(rest * 1_000_000)))


class Connection(gthread.TConn):
    """A connection that never makes the worker's main loop wait, nor a thread before a request has begun."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any) -> None:
        super().__init__(cfg, Wire(fileno=sock.detach()), client, server)

    def init(self) -> None:
        """Begin a request: its time runs from here."""
        if not self.initialized:
            self.sock.limit(socket.SO_RCVTIMEO, STAY)
            self.sock.limit(socket.SO_SNDTIMEO, REQUEST_LIMIT)
        super().init()
        self.parser.unreader.start()

    def next_is_here(self) -> bool:
        """Whether the next request, or the end of the connection, comes within `STAY`."""
        unreader = self.parser.unreader
        if unreader.buf.tell():  # it came with the last one
            return True
        try:
            unreader.unread(self.sock.recv(8192))
        except BlockingIOError:
            return False
        return True

    def wait_for_data(self, timeout: float) -> bool:
        """Look, and leave the waiting to the main loop."""
        return bool(super().wait_for_data(0))

    def close(self, graceful: bool = False) -> None:
        """Close at once: the thread that answered has lingered already."""
        gunicorn.util.close(self.sock)


class Unreader(SocketUnreader):
    """Reads from a client that must be done in time; one that is not, or hangs up half-way, is an error."""

    def start(self) -> None:
        """Give the client its time for the next request."""
        self._ends = time.monotonic() + REQUEST_LIMIT

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Return what has arrived, at least one byte. Raises NoMoreData."""
        data = b""
        left = self._ends - time.monotonic()
        if left > 0:
            try:
                data = super().chunk(size_hint)
            except BlockingIOError:  # it was not here within `STAY`
                data = self._waited_for(left, size_hint)
        if not data:
            raise NoMoreData
        return data

    def _waited_for(self, seconds: float, size_hint: int | None) -> bytes:
        self.sock.settimeout(seconds)
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError:
            return b""
        finally:
            self.sock.setblocking(True)
        return data


class Head(Request):
    """The head of a request, in which nobody may speak for another."""

    def parse(self, unreader: Any) -> Any:
        """Parse it within HEAD_LIMIT. For each packet, gunicorn searches all that it has received so far."""
        self.max_buffer_headers = HEAD_LIMIT
        return super().parse(unreader)

    def _peer_trusted_for_forwarded(self) -> tuple[dict[str, str], list[str]]:
        return {}, []


class Requests(RequestParser):
    """The requests of a connection."""

    mesg_class = Head

    def finish_body(self, *args: Any, **options: Any) -> bool:
        """Make sure that nothing is left of the last request; mostly it was read to its end."""
        body = self.mesg.body if self.mesg else None
        if body is not None and not body.failed and getattr(body.reader, "length", None) == 0:
            return True
        return bool(super().finish_body(*args, **options))


class Answer(Response):
    """An answer that says truly whether the connection stays, and nothing about the server."""

    headers_sent: bool
    _head = b""

    def default_headers(self) -> list[str]:
        """Return the lines before those of the application."""
        if not _can_follow(self.req.body):
            self.force_close()
        major, minor = self.req.version
        return [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Date: {_http_date(int(time.time()))}\r\n",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}\r\n",
            *(["Transfer-Encoding: chunked\r\n"] if self.chunked else []),
        ]

    def send_headers(self) -> None:
        """Put the head together. It goes with the beginning of the body: one packet, and one turn."""
        if not self.headers_sent:
            lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers)]
            self._head = f"{''.join(lines)}\r\n".encode("latin-1")
            self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        if self.chunked:
            self._send_head()
            super()._emit_body(data)
        else:
            self._send_head(data)

    def close(self) -> None:
        """End the answer."""
        self.send_headers()
        self._send_head()
        super().close()

    def _send_head(self, following: bytes = b"") -> None:
        data, self._head = self._head + following, b""
        if len(data) > SENT_AT_ONCE:
            self.sock.settimeout(REQUEST_LIMIT)  # for all of it, where the kernel's is for each part
        if data:
            self.sock.sendall(data)
        self.sock.setblocking(True)


def refuse(client: socket.socket, status: int, reason: str, _detail: str) -> None:
    """Answer in JSON what never became a request: not HTTP, or larger than the server reads."""
    # What it was, and when it began, is not known here.
    record = Record(correlation_id=str(uuid.uuid4()), method=None, started=None)
    answer = respond(ApiError(bare(status)), record)
    record.write(answer.status_code)
    head = (
        f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}\r\n"
        "Connection: close\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n"
        f"x-correlation-id: {record.correlation_id}\r\nContent-Length: {len(answer.content)}\r\n\r\n"
    )
    gunicorn.util.write_nonblock(client, head.encode("ascii") + answer.content)


_http_date = lru_cache(maxsize=1)(gunicorn.util.http_date)  # which is asked for many times a second
_create = gunicorn.http.wsgi.create


def _said_where_it_came_in(req: Any, sock: Any, client: Any, server: Any, cfg: Any) -> Any:
    """Tell the application whether a request came in where only those who watch over the server reach it."""
    response, environ = _create(req, sock, client, server, cfg, Answer)
    port = settings.AGS_OPERATIONS_BIND.rpartition(":")[2]
    # By the socket, and not by what the request says of it: a listener in the file system has no port.
    environ["ags.operations"] = isinstance(server, tuple) and str(server[1]) == port
    return response, environ


def _can_follow(body: Any) -> bool:
    """Whether another request can follow this body: it was read to its end, or nearly."""
    if body.failed:
        return False
    if isinstance(body.reader, LengthReader):
        return bool(body.reader.length <= DRAIN_LIMIT)
    return body.reader.parser is None


# gunicorn has no setting for these.
gunicorn.http.wsgi.create = _said_where_it_came_in
gunicorn.util.write_error = refuse
gunicorn.http.parser.SocketUnreader = Unreader
gunicorn.http.RequestParser = Requests
gthread.TConn = Connection
