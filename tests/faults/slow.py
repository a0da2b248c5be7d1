"""Clients that hold connections, from a process of their own."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.load import get
from bench.systems.asking import get_session_token
from tests.faults.traffic import background_process

PIPELINED = 20
"""Large answers that a client asks for and does not read."""

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
"""What a client of each kind sends: the first at once, then a byte each second."""


def _hold(sender: Any, stop: Any, kind: str, ports: Sequence[int], number: int) -> None:
    wires: dict[socket.socket, Iterator[bytes]] = {}
    opened: dict[int, float] = {}
    sent = 0
    for port in itertools.islice(itertools.cycle(ports), number):
        wire = socket.socket()
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        wire.settimeout(5)
        try:
            wire.connect(("127.0.0.1", port))
        except OSError:  # nobody takes it any more
            wire.close()
            continue
        opened[wire.getsockname()[1]] = time.monotonic()
        wire.setblocking(False)
        wires[wire] = KINDS[kind]()
        sent += _send(wire, wires[wire])
    sender.send(opened)
    while not stop.wait(1):
        sent += sum(_send(wire, data) for wire, data in wires.items())
    sender.send(sent)


def _send(wire: socket.socket, data: Iterator[bytes]) -> int:
    try:
        return wire.send(next(data, b""))
    except OSError:  # closed, or nobody reads
        return 0


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
