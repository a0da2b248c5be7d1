"""Clients that hold connections, from a process of their own.

They come one after the other and each sends in its own time, for nothing makes strangers act at once.
"""

from __future__ import annotations

import heapq
import itertools
import math
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.load import get
from bench.systems.asking import get_session_token
from tests.faults.traffic import background_process

PIPELINED = 20
"""Large answers that a client asks for and does not read."""

OPENING = 8.0
"""Seconds in which they come: the last before the first is closed."""

GIVES_WAY = 10
"""Niceness of their process: their work is done by other machines."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the connections of a server."""

OPEN = {"01", "08"}
"""States of TCP in /proc/net/tcp: established, and closed by the client only."""

SEGMENT = 536
"""Bytes. Where segments are as large as on loopback, the system alone takes megabytes over from a server."""


def _drip(first: bytes) -> Iterator[bytes]:
    yield first
    yield from itertools.repeat(b"a")


def _once(data: bytes) -> Iterator[bytes]:
    yield data


_GOOD = get_session_token()
KINDS = {
    "heads": lambda: _drip(_GOOD[:60]),
    "bodies": lambda: _drip(
        _GOOD.replace(b"Content-Length: ", b"Content-Length: 6")[: _GOOD.index(b"{") + 9]
    ),
    "readers": lambda: _once(get("/openapi.json", {}) * PIPELINED),
    "silent": lambda: _once(b""),
}
"""What a client of each kind sends: the first at once, then one after each second."""


Due = tuple[float, int, socket.socket, Iterator[bytes]]
"""When a client sends next, its place among them all, its connection, and what it has to send."""


def _hold(sender: Any, stop: Any, kind: str, ports: Sequence[int], number: int) -> None:
    os.nice(GIVES_WAY)
    due: list[Due] = []
    opened: dict[int, float] = {}
    sent, began = 0, time.monotonic()
    for place, port in enumerate(itertools.islice(itertools.cycle(ports), number)):
        sent += _send_until(began + OPENING * place / number, due)
        if (wire := _connect(port)) is not None:
            opened[wire.getsockname()[1]] = time.monotonic()
            heapq.heappush(due, (time.monotonic(), place, wire, KINDS[kind]()))
    sender.send(opened)
    while not stop.is_set():
        sent += _send_until(time.monotonic() + 0.1, due)
    sender.send(sent)


def _connect(port: int) -> socket.socket | None:
    wire = socket.socket()
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
    wire.settimeout(5)
    try:
        wire.connect(("127.0.0.1", port))
    except OSError:  # nobody takes it any more
        wire.close()
        return None
    wire.setblocking(False)
    return wire


def _send_until(end: float, due: list[Due]) -> int:
    """Send what is due until then; return how many bytes. Each client sends once in a second."""
    sent = 0
    while due and due[0][0] < end:
        at, place, wire, data = heapq.heappop(due)
        time.sleep(max(at - time.monotonic(), 0))
        with suppress(OSError):  # closed, or nobody reads
            sent += wire.send(next(data, b""))
        heapq.heappush(due, (at + 1, place, wire, data))
    time.sleep(max(end - time.monotonic(), 0))
    return sent


def clients_of(port: int) -> set[int]:
    """Return the ports of the clients whose connections that server has not closed, accepted or not."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return {
        int(remote.rpartition(":")[2], 16)
        for _, local, remote, state, *_ in lines
        if local.endswith(f":{port:04X}") and state in OPEN
    }


def _look(sender: Any, stop: Any, port: int) -> None:
    os.nice(GIVES_WAY)
    seen: dict[int, float] = {}
    while not stop.is_set():
        time.sleep(LOOK_EVERY)
        seen |= dict.fromkeys(clients_of(port), time.monotonic())
    sender.send(seen | dict.fromkeys(clients_of(port), math.inf))


@contextmanager
def closings(port: int) -> Iterator[dict[int, float]]:
    """Look which connections that server has. Yield at the end when each was seen last, `inf` if it is open.

    One that was never seen was closed within `LOOK_EVERY`. Another process looks, which gives way: to look
    takes the system tens of milliseconds.
    """
    closed: dict[int, float] = {}
    with background_process(_look, port) as (receiver, stop):
        try:
            yield closed
        finally:
            stop.set()
            closed |= receiver.recv()


class Held(dict[int, float]):
    """The moment of opening of each connection, by its port; `sent` are the bytes of all, at the end."""

    sent = 0


@contextmanager
def clients(kind: str, ports: Sequence[int], number: int) -> Iterator[Held]:
    """Hold so many connections of a kind, from their opening to the end of the context."""
    with background_process(_hold, kind, ports, number) as (receiver, stop):
        held = Held(receiver.recv())
        try:
            yield held
        finally:
            stop.set()
            held.sent = receiver.recv()
