"""Slow clients: nobody else waits for them, and in the end they are closed. For many, see `make faults`."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ags.server.worker import BUFFER_LIMIT
from tests.conftest import HeadEnd
from tests.live.conftest import warm
from tests.live.server import Client, ServerProcess
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

MANY = 16
"""Of each kind."""

PACE = 0.5
"""Seconds between the bytes of a slow client."""

HEAD = b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\n"
BODY = HEAD + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20
KINDS = [(HEAD + b"X-Slow: ", b"a"), (BODY, b" "), (b"", b""), (LARGE, b"")]
"""What clients send at once, and then byte by byte. The third send nothing; the last do not read."""

FORMS = 14
"""Bodies of a page of staff. Of what is sent of them, the last byte is more than a process buffers."""

FORM_SENT, FORM_REST = b" " * (BUFFER_LIMIT // FORMS + 1), b" " * 1000
FORM = (
    b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n"
    b"Connection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
) % len(FORM_SENT + FORM_REST)
DROPPED = '"message": "connections were dropped at a limit of the process", "dropped": 1,'


@contextmanager
def slow_clients(port: int) -> Iterator[list[socket.socket]]:
    """Yield clients of each kind. They never come to an end, and read nothing."""
    with ExitStack() as held:
        wires = [(held.enter_context(socket.socket()), *data) for data in KINDS for _ in range(MANY)]
        for wire, first, _ in wires:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            wire.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536
            )  # else much fits into the system's buffers
            wire.settimeout(PATIENCE)
            wire.connect(("127.0.0.1", port))
            wire.sendall(first)
        done = threading.Event()

        def drip() -> None:
            while not done.wait(PACE):
                for wire, _, then in wires:
                    with contextlib.suppress(OSError):  # the server has closed it
                        wire.sendall(then)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield [wire for wire, *_ in wires]
        finally:
            done.set()
            thread.join()


def test_nobody_waits_for_slow_clients_and_in_the_end_they_are_closed(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)

    def are_closed_in_the_end(slow: list[socket.socket]) -> None:
        heads, bodies, silent = (slow[kind * MANY : (kind + 1) * MANY] for kind in range(3))
        for wire in [*heads, *bodies, *silent]:
            with contextlib.suppress(ConnectionResetError):  # it was closed while it sent
                received = b"".join(iter(lambda: wire.recv(65536), b""))  # noqa: B023
                assert received.startswith(b"HTTP/1.1 400 ") if wire in bodies else received == b""
        wait_until(lambda: not held(server, slow), "clients that do not read are kept")

    def nobody_waits() -> bool:
        """Return whether good clients were answered while all slow ones were held: not on a slow machine."""
        with slow_clients(server.port) as slow:
            for path in ("/healthz", "/readyz"):
                client = Client(server.port)
                assert client.get(path).status_code == 200
                client.close()
            assert head_end.present(head_end.token()).status_code == 200
            if len(held(server, slow)) < len(slow):
                return False
            are_closed_in_the_end(slow)
        return True

    wait_until(nobody_waits, "good clients are answered only after slow ones have been closed")


def held(server: ServerProcess, clients: list[socket.socket]) -> list[int]:
    """The ports of those whose connections the server holds."""
    states, ports = server.connections(), [wire.getsockname()[1] for wire in clients]
    return [port for port in ports if states.get(port) in {"ESTABLISHED", "CLOSE_WAIT"}]


def test_the_oldest_incomplete_body_is_refused_where_all_exceed_the_limit(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)

    def the_oldest_is_refused() -> bool:
        """Return whether all bodies were held at once: on a slow machine, the first may have expired."""
        known = len(server.log)
        with ExitStack() as held, contextlib.suppress(ConnectionError):  # it has expired
            address = ("127.0.0.1", server.port)
            wires = [held.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(FORMS)]
            for wire in wires:
                assert head_end.present(head_end.token()).status_code == 200
                wire.sendall(FORM + FORM_SENT)
            statuses = [status_of(wires[0])]  # all must have arrived before the limit is exceeded
            for wire in wires[1:]:
                assert head_end.present(head_end.token()).status_code == 200
                wire.sendall(FORM_REST)
                statuses.append(status_of(wire))
            if 400 in statuses:
                return False
            assert statuses == [503, *[403] * (FORMS - 1)]  # the form is whole, and lacks its CSRF token
            wait_until(lambda: DROPPED in server.log[known:], "the refusal is not logged")
            return True
        return False

    wait_until(the_oldest_is_refused, "the bodies expire before all are held")


def status_of(wire: socket.socket) -> int:
    """Return the status of the one response of that connection."""
    received = b"".join(iter(lambda: wire.recv(65536), b""))
    return int(received.split(maxsplit=2)[1])
