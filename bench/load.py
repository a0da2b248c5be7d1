"""The load generator: each conversation sends its next request when it has received a response."""

from __future__ import annotations

import itertools
import re
import select
import socket
import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

Conversation = Generator[bytes, "Answer", None]
"""Yields each request in the form of HTTP/1.1, and is sent the response. Raises `WrongAnswer`."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class WrongAnswer(Exception):
    """A response is not as expected."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    body: bytes

    def expect(self, status: int, pattern: bytes) -> re.Match[bytes]:
        """Return the match of a pattern in the body. Raises `WrongAnswer` without, or for another status."""
        found = re.search(pattern, self.body) if self.status == status else None
        if found is None:
            raise WrongAnswer(f"{self.status} {self.body[:300]!r}")
        return found


@dataclass(slots=True)
class LoadResult:
    """The duration of a run, and the latency of each response, in seconds."""

    seconds: float
    latencies: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Responses per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """Return a percentile of the latencies in milliseconds."""
        return sorted(self.latencies)[min(int(len(self.latencies) * share), len(self.latencies) - 1)] * 1000


def medians(rounds: Sequence[LoadResult]) -> str:
    """Return a line with the medians of rounds."""
    figures = [
        (one.per_second, one.percentile(0.5), one.percentile(0.99), one.percentile(1)) for one in rounds
    ]
    rate, p50, p99, longest = (statistics.median(each) for each in zip(*figures, strict=True))
    return f"{rate:6,.0f}/s  p50 {p50:6.1f}  p99 {p99:7.1f}  longest {longest:7.1f} ms"


class _Connection:
    __slots__ = ("began", "conversation", "received", "socket")

    def __init__(self, port: int, conversation: Conversation) -> None:
        self.conversation = conversation
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.began = 0.0

    def send(self, request: bytes) -> None:
        self.began = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> Answer | None:
        """Return the response once it is complete, until then None."""
        data = self.socket.recv(65536)
        if not data:
            raise WrongAnswer(f"connection closed after {self.received[:300]!r}")
        received = self.received = self.received + data if self.received else data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(received, 0, end)
        if length is None:
            raise WrongAnswer(f"no Content-Length: {received[:300]!r}")
        body = received[end + 4 :]
        if len(body) < int(length[1]):
            return None
        self.received = b""
        return Answer(int(received[9:12]), body)


def run(port: int | Sequence[int], conversations: Sequence[Conversation], seconds: float) -> LoadResult:
    """Run each conversation over a connection of its own for `seconds`; return the latencies.

    Several ports are assigned to the conversations in turn. The run ends early when a conversation has no
    more requests. Raises `WrongAnswer` and OSError.
    """
    ports = itertools.cycle([port] if isinstance(port, int) else port)
    wires = {}
    poll = select.epoll()
    for conversation in conversations:
        wire = _Connection(next(ports), conversation)
        wires[wire.socket.fileno()] = wire
        poll.register(wire.socket.fileno(), select.EPOLLIN)
    each: list[float] = []
    began = time.perf_counter()
    ends = began + seconds
    waiting = 0
    try:
        for wire in wires.values():
            first = next(wire.conversation, None)
            if first is not None:
                wire.send(first)
                waiting += 1
        while waiting:
            for number, _ in poll.poll(30) or _nothing():
                wire = wires[number]
                answer = wire.receive()
                if answer is None:
                    continue
                now = time.perf_counter()
                each.append(now - wire.began)
                waiting -= 1
                try:
                    following = wire.conversation.send(answer)
                except StopIteration:
                    ends = now
                if now < ends:
                    wire.send(following)
                    waiting += 1
        return LoadResult(time.perf_counter() - began, each)
    finally:
        poll.close()
        for wire in wires.values():
            wire.socket.close()


def _nothing() -> list[tuple[int, int]]:
    raise WrongAnswer("no response in 30 s")


def post(path: str, body: bytes, headers: dict[str, str], content_type: str = "application/json") -> bytes:
    """Return a POST request in the form of HTTP/1.1."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    head = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def get(path: str, headers: dict[str, str]) -> bytes:
    """Return a GET request in the form of HTTP/1.1."""
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()
