"""The HTTPS server of an operator, in a thread, with configurable replies and a list of requests."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.support.upstream.authority import Authority, authority
from tests.support.upstream.deadlines import LONGEST
from tests.support.waiting import PATIENCE


@dataclass(frozen=True)
class ReceivedRequest:
    """A received request. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """A response, which is sent when `wait` is set. `body` is bytes, or an iterator of bytes.

    It is sent after PATIENCE in any case, so the test of a caller that ignores its deadline fails.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """Return a reply in JSON."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class HTTPSServer:
    """A context manager that runs a server.

    `replies` maps a path to a `Reply`, or to a function of the request that returns one. `default_reply` is
    for all other paths. `requests` contains all requests so far.
    """

    def __init__(self, issuer: Authority | None = None) -> None:
        self.replies: dict[str, Reply | Callable[[ReceivedRequest], Reply]] = {}
        self.default_reply: Reply | Callable[[ReceivedRequest], Reply] = Reply(404)
        self.requests: list[ReceivedRequest] = []
        self.closing = threading.Event()
        """Set when the server is closed."""
        context = (issuer or authority()).server_context()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.context = context
        self.connections: list[Any] = []
        """The address of the client of each TLS connection."""
        self._server.connections = self.connections
        self.port: int = self._server.server_address[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"https://{self.address}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of a service that trusts this server."""
        return {"ca_certificates": authority().certificate, "deadline": LONGEST}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext
    connections: list[Any]

    def finish_request(self, request: Any, client_ip: Any) -> None:
        # In the thread of the connection, so that a stalled handshake does not block other clients.
        request.settimeout(PATIENCE)
        try:
            wire = self.context.wrap_socket(request, server_side=True)
        except OSError:
            return
        self.connections.append(client_ip)
        try:
            super().finish_request(wire, client_ip)
        finally:
            with contextlib.suppress(OSError):
                wire.close()

    def handle_error(self, request: Any, client_ip: Any) -> None:
        """Ignore clients that disconnect."""

    def server_bind(self) -> None:
        # The original also resolves the name of this machine.
        socket_server_bind(self)


def socket_server_bind(server: ThreadingHTTPServer) -> None:
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.socket.bind(server.server_address)
    server.server_address = server.socket.getsockname()
    server.server_name, server.server_port = "localhost", server.server_address[1]


def _handler(server: HTTPSServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = PATIENCE

        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = ReceivedRequest(self.command, self.path, headers, body)
            server.requests.append(request)
            reply = server.replies.get(self.path.partition("?")[0], server.default_reply)
            self.send(reply(request) if callable(reply) else reply)

        do_GET = do_POST = respond  # noqa: N815

        def send(self, reply: Reply) -> None:
            if reply.wait is not None:
                limit = time.monotonic() + PATIENCE
                while not (reply.wait.wait(0.02) or server.closing.is_set()) and time.monotonic() < limit:
                    pass
            self.send_response_only(reply.status)
            whole = isinstance(reply.body, bytes)
            has_length = whole and "Transfer-Encoding" not in reply.headers
            length = {"Content-Length": str(len(reply.body))} if has_length else {}
            for name, value in {**length, **reply.headers}.items():
                self.send_header(name, value)
            if whole:
                # In one write with the head: a large body arrives before the client can disconnect.
                self._headers_buffer += [b"\r\n", reply.body]  # type: ignore[attr-defined]
                self.flush_headers()
                return
            self.send_header("Connection", "close")
            self.end_headers()
            for piece in reply.body:
                self.wfile.write(piece)
                if server.closing.is_set():
                    break

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Say nothing."""

    return Handler
