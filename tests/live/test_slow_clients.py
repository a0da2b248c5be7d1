"""Slow clients: they do not block others, and their connections time out. `make faults` tests many."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from ags.server.worker import BUFFER_LIMIT
from tests.support.clients import HeadEnd
from tests.support.live import wait_until_served
from tests.support.server import Client, ServerProcess
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

CLIENTS = 16
"""Clients of each kind."""

SEND_INTERVAL = 0.5
"""Seconds between the bytes of a slow client."""

HEAD = b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\n"
BODY = HEAD + b"Content-Type: application/json\r\nContent-Length: 60000\r\n\r\n{"
LARGE = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20
KINDS = [(HEAD + b"X-Slow: ", b"a"), (BODY, b" "), (b"", b""), (LARGE, b"")]
"""What clients send first, and then byte by byte. The third send nothing; the last do not read."""

FORMS = 14
"""Number of large forms. Together, FORM_SENT of all exceeds BUFFER_LIMIT."""

FORM_SENT, FORM_REST = b" " * (BUFFER_LIMIT // FORMS + 1), b" " * 1000
FORM = (
    b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n"
    b"Connection: close\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
) % len(FORM_SENT + FORM_REST)
DROPPED = "connections were dropped at a limit of the process"


@contextmanager
def slow_clients(port: int) -> Iterator[list[socket.socket]]:
    """Yield clients of each kind. They never complete a request and never read."""
    with ExitStack() as held:
        socks = [(held.enter_context(socket.socket()), *data) for data in KINDS for _ in range(CLIENTS)]
        for sock, first, _ in socks:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
            sock.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536
            )  # otherwise the system buffers too much
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", port))
            sock.sendall(first)
        done = threading.Event()

        def drip() -> None:
            while not done.wait(SEND_INTERVAL):
                for sock, _, then in socks:
                    with contextlib.suppress(OSError):  # the server has closed it
                        sock.sendall(then)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            yield [sock for sock, *_ in socks]
        finally:
            done.set()
            thread.join()


def test_slow_clients_do_not_block_others_and_time_out(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = wait_until_served(server, nagra)

    def check_timeouts(slow: list[socket.socket]) -> None:
        heads, bodies, silent = (slow[kind * CLIENTS : (kind + 1) * CLIENTS] for kind in range(3))
        for sock in [*heads, *bodies, *silent]:
            with contextlib.suppress(ConnectionResetError):  # closed while sending
                received = b"".join(iter(lambda: sock.recv(65536), b""))  # noqa: B023
                assert received.startswith(b"HTTP/1.1 400 ") if sock in bodies else received == b""
        wait_until(lambda: not connected_ports(server, slow), "clients that do not read stay connected")

    def others_are_served() -> bool:
        """Return False if slow clients timed out before the other clients were served, on a slow machine."""
        with slow_clients(server.port) as slow:
            for path in ("/healthz", "/readyz"):
                client = Client(server.port)
                assert client.get(path).status_code == 200
                client.close()
            assert head_end.present(head_end.token()).status_code == 200
            if len(connected_ports(server, slow)) < len(slow):
                return False
            check_timeouts(slow)
        return True

    wait_until(others_are_served, "clients wait for slow ones")


def connected_ports(server: ServerProcess, clients: list[socket.socket]) -> list[int]:
    """Return the ports of the clients that are connected."""
    states, ports = server.connections(), [sock.getsockname()[1] for sock in clients]
    return [port for port in ports if states.get(port) in {"ESTABLISHED", "CLOSE_WAIT"}]


def test_oldest_incomplete_body_is_rejected_at_the_buffer_limit(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = wait_until_served(server, nagra)

    def oldest_is_rejected() -> bool:
        """Return False if a body timed out before all were sent, on a slow machine."""
        logged = len(server.log)
        with ExitStack() as held, contextlib.suppress(ConnectionError):  # timed out
            address = ("127.0.0.1", server.port)
            socks = [held.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(FORMS)]
            for sock in socks:
                assert head_end.present(head_end.token()).status_code == 200
                sock.sendall(FORM + FORM_SENT)
            statuses = [read_status(socks[0])]  # rejected after all have arrived
            for sock in socks[1:]:
                assert head_end.present(head_end.token()).status_code == 200
                sock.sendall(FORM_REST)
                statuses.append(read_status(sock))
            if 400 in statuses:
                return False
            assert statuses == [503, *[403] * (FORMS - 1)]  # the form is complete, but has no CSRF token
            wait_until(lambda: count_dropped(server.log[logged:]) == 1, "the rejection is not logged")
            return True
        return False

    wait_until(oldest_is_rejected, "the bodies time out before all are sent")


def count_dropped(log: str) -> int:
    """Return the number of connections that were dropped, by the log."""
    lines = (json.loads(line) for line in log.splitlines() if DROPPED in line)
    return sum(line["dropped"] for line in lines)


def read_status(sock: socket.socket) -> int:
    """Return the status of the only response."""
    received = b"".join(iter(lambda: sock.recv(65536), b""))
    return int(received.split(maxsplit=2)[1])
