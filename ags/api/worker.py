"""The worker of the production server: gunicorn's threads, with this project's manners on the wire.

Only gunicorn imports this file (`manage.py serve` names it); the application itself knows no server.
"""

from __future__ import annotations

import socket
import sys
import time
import uuid
from typing import Any

import gunicorn.glogging
import gunicorn.http.parser
import gunicorn.http.wsgi
import gunicorn.util
from django.conf import settings
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import Response
from gunicorn.workers import gthread

from ags.api.errors import ApiError, bare, respond
from ags.api.record import Record
from ags.operations.database import bound_all_statements
from ags.operations.logs import JSONLines, ReadableLines

REQUEST_LIMIT = 10.0
"""Seconds in which a client must have sent a request, head and body, and in which it must take each write."""

LINGER = 1.0
"""Seconds in which a client may finish talking after the last answer of a connection."""

DRAIN_LIMIT = 32 * 1024
"""Bytes of an unread body that are worth reading to keep the connection."""


class Log(gunicorn.glogging.Logger):
    """The log of the process that minds the workers, in the project's lines; theirs is Django's."""

    def setup(self, cfg: Any) -> None:
        """Replace gunicorn's own form."""
        super().setup(cfg)
        for handler in self.error_log.handlers:
            handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JSONLines())


class Worker(gthread.ThreadWorker):
    """A worker process whose database statements are bounded, and whose threads no client can hold."""

    def init_process(self) -> None:
        """Prepare the process before it takes requests."""
        bound_all_statements()
        super().init_process()

    def handle(self, conn: Connection) -> Any:
        """Answer one request; say whether the connection is kept."""
        kept = super().handle(conn)
        if kept is False:
            # Closing at once would reset the connection while the client still sends, and lose the answer.
            gunicorn.util.close_graceful(conn.sock, timeout=LINGER, max_drain=1 << 20)
        return kept


class Connection(gthread.TConn):
    """A connection that never makes the worker's main loop wait, nor a thread before a request has begun."""

    def init(self) -> None:
        """Begin a request: its time runs from here."""
        super().init()
        self.sock.settimeout(REQUEST_LIMIT)
        self.parser.unreader.start()

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
        self.sock.settimeout(max(self._ends - time.monotonic(), 0.001))
        try:
            data: bytes = super().chunk(size_hint)
        except TimeoutError:
            data = b""
        finally:
            self.sock.settimeout(REQUEST_LIMIT)
        if not data:
            raise NoMoreData
        return data


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


_create = gunicorn.http.wsgi.create


def _said_where_it_came_in(req: Any, sock: Any, client: Any, server: Any, cfg: Any) -> Any:
    """Tell the application whether a request came in where only those who watch over the server reach it."""
    response, environ = _create(req, sock, client, server, cfg)
    port = settings.AGS_OPERATIONS_BIND.rpartition(":")[2]
    # By the socket, and not by what the request says of it: a listener in the file system has no port.
    environ["ags.operations"] = isinstance(server, tuple) and str(server[1]) == port
    return response, environ


_default_headers = Response.default_headers


def _headers(response: Any) -> list[str]:
    """Say truly whether the connection stays, and nothing about the server."""
    if not _can_follow(response.req.body):
        response.force_close()
    return [line for line in _default_headers(response) if not line.startswith("Server:")]


def _can_follow(body: Any) -> bool:
    """Whether another request can follow this body: it was read to its end, or nearly."""
    if body.failed:
        return False
    if isinstance(body.reader, LengthReader):
        return bool(body.reader.length <= DRAIN_LIMIT)
    return body.reader.parser is None


# gunicorn has no setting for these.
gunicorn.http.wsgi.create = _said_where_it_came_in
Response.default_headers = _headers
gunicorn.util.write_error = refuse
gunicorn.http.parser.SocketUnreader = Unreader
gthread.TConn = Connection
