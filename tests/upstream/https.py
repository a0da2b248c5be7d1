"""A real HTTPS server of an operator, in a thread: answers as told, remembers what it was asked."""

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

from tests.upstream.authority import Authority, authority
from tests.upstream.deadlines import LONGEST
from tests.waiting import PATIENCE


@dataclass(frozen=True)
class Asked:
    """One request that came in. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """What is answered, once `wait` is set. `body` is sent as it is, or piece by piece.

    It is sent after PATIENCE in any case. A caller that ignores its deadline gets it, and its test fails.
    """

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None


def as_json(value: Any, status: int = 200, **headers: str) -> Reply:
    """A reply in JSON."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


class HTTPSServer:
    """Answers by path, from `replies`: a `Reply`, or a function that makes one of what was asked.

    What is asked for elsewhere is answered with `otherwise`. `asked` are the requests so far. Use it as a
    context.
    """

    def __init__(self, vouched_for_by: Authority | None = None) -> None:
        self.replies: dict[str, Reply | Callable[[Asked], Reply]] = {}
        self.otherwise: Reply | Callable[[Asked], Reply] = Reply(404)
        self.asked: list[Asked] = []
        self.closing = threading.Event()
        """Set when the server is closed: whoever waits has something to wait for."""
        context = (vouched_for_by or authority()).server_context()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._server.context = context
        self.connections: list[Any] = []
        """The addresses of clients, one for each TLS connection."""
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
        """The settings by which a service trusts it."""
        return {"ca_certificates": authority().certificate, "deadline": LONGEST}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    context: ssl.SSLContext
    connections: list[Any]

    def finish_request(self, request: Any, client_ip: Any) -> None:
        # In the thread of the connection: a client that stalls in the handshake stalls nobody else.
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
        """A client that hangs up is what some tests are about."""

    def server_bind(self) -> None:
        # Without the look-up of this machine's name.
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

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, body)
            server.asked.append(asked)
            reply = server.replies.get(self.path.partition("?")[0], server.otherwise)
            self.send(reply(asked) if callable(reply) else reply)

        do_GET = do_POST = answer  # noqa: N815

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
                # With the head, at once: what is too much arrives before anybody can have gone.
                self._headers_buffer += [b"\r\n", reply.body]
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
