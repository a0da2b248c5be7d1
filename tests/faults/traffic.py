"""Traffic, each kind from a process of its own: it notes each answer, with the moment at which it was due."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import uvloop

from bench.load import get
from bench.systems.asking import get_session_token

PATIENCE = 10.0
"""Seconds after which a head-end gives up."""

KEPT = 30.0
"""Seconds after which the load does not use a connection again; HAProxy would close it after 50."""

MOST = 2000
"""Requests without an answer beyond which no more are sent: one that is then due has failed."""

IDLE, PAUSE = 100, 6.0
"""Connections to each gateway that the other balancer holds, and the longest pause of each in seconds."""

PROBES = [get(path, {"Connection": "close"}) for path in ("/healthz", "/readyz")]

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOKEN = re.compile(rb'"sessionToken": ?"(\w+)"')
_CORRELATION_ID = re.compile(rb"\r\nx-correlation-id: (\S+)")


class Sample(NamedTuple):
    """An answer, or why there is none; seconds count from the moment at which the request was due."""

    due: float
    seconds: float
    status: int | str
    grant: tuple[str, str] | None = None
    """The session token, and the correlation ID of the request."""


class Samples(list[Sample]):
    """Answers of one kind."""

    def between(self, begin: float, end: float) -> Samples:
        """Return those that were due then."""
        return Samples(one for one in self if begin <= one.due < end)

    def failed(self, expected: int = 200) -> Samples:
        """Return all but those with the expected status."""
        return Samples(one for one in self if one.status != expected)

    def statuses(self) -> str:
        """Return how many there are of each status and error."""
        return ", ".join(f"{number} {status}" for status, number in Counter(s.status for s in self).items())

    def percentile(self, share: float) -> float:
        """Return that percentile, in milliseconds; requests without an answer count as long as they took."""
        seconds = sorted(one.seconds for one in self)
        return seconds[min(int(len(self) * share), len(self) - 1)] * 1000


Note = Callable[[Sample], None]
GoesOn = Callable[[], bool]
"""Every kind of traffic begins with these; when it is to end it awaits the answers that are due."""


class Wire(asyncio.Protocol):
    """A connection, for one request at a time. Closed as soon as the other side closes it."""

    answer: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def connect(cls, port: int) -> Wire:
        """Return a new one. Raises OSError."""
        return (await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port))[1]

    def connection_made(self, transport: Any) -> None:
        self.transport, self.used = transport, time.monotonic()

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Return status and body. Raises OSError."""
        self.answer, self.received = asyncio.get_running_loop().create_future(), b""
        self.transport.write(request)
        answer = await self.answer
        self.used = time.monotonic()
        return answer

    def is_usable(self) -> bool:
        """Whether neither side has closed it, and it was used not long ago."""
        return not self.transport.is_closing() and time.monotonic() - self.used < KEPT

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and self.answer and not self.answer.done() and length and len(body) >= int(length[1]):
            if b"connection: close" in head.lower():
                self.transport.close()
            self.answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self.answer and not self.answer.done():
            self.answer.set_exception(error or ConnectionAbortedError())


async def send_request(note: Note, due: float, wire: Wire | None, port: int, request: bytes) -> Wire | None:
    """Send a request, and note the answer; return the connection if it can be used again."""
    try:
        async with asyncio.timeout(PATIENCE):
            wire = wire or await Wire.connect(port)
            status, body = await wire.ask(request)
    except (OSError, TimeoutError) as error:
        note(Sample(due, time.monotonic() - due, type(error).__name__))
        if wire:
            wire.transport.abort()
        return None
    token, sent = _TOKEN.search(body), _CORRELATION_ID.search(request)
    grant = (token[1].decode(), sent[1].decode()) if token and sent else None
    outcome = f"{status} of HAProxy" if body.startswith(b"<html>") else status
    note(Sample(due, time.monotonic() - due, outcome, grant))
    return wire if wire.is_usable() else None


async def open_loop_load(
    note: Note, goes_on: GoesOn, ports: Sequence[int], rate: float, request: Callable[[], bytes]
) -> None:
    """Send requests at this rate, answered or not, over as many connections as that takes."""
    kept: list[Wire] = []
    waiting: set[asyncio.Task[None]] = set()
    turns, began = itertools.cycle(ports), time.monotonic()

    async def one(due: float) -> None:
        wire = kept.pop() if kept else None
        while wire and not wire.is_usable():
            wire.transport.abort()
            wire = kept.pop() if kept else None
        if wire := await send_request(note, due, wire, next(turns), request()):
            kept.append(wire)

    async with asyncio.TaskGroup() as tasks:
        for number in itertools.count():
            if not goes_on():
                return
            due = began + number / rate
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            if len(waiting) < MOST:
                waiting.add(task := tasks.create_task(one(due)))
                task.add_done_callback(waiting.discard)
            else:
                note(Sample(due, PATIENCE, "TooMany"))


async def idle_connections(note: Note, goes_on: GoesOn, ports: Sequence[int]) -> None:
    """Use connections of another balancer, and again after a pause, unless they are closed by then."""

    async def one(port: int) -> None:
        while goes_on():
            try:
                wire: Wire | None = await Wire.connect(port)
            except OSError:  # refused: a balancer takes the other gateway
                await asyncio.sleep(0.1)
                continue
            while goes_on() and wire and wire.is_usable():
                wire = await send_request(note, time.monotonic(), wire, port, get_session_token())
                await asyncio.sleep(random.uniform(0, PAUSE))

    async with asyncio.TaskGroup() as tasks:
        for port in ports:
            for _ in range(IDLE):
                tasks.create_task(one(port))


async def health_probes(note: Note, goes_on: GoesOn, ports: Sequence[int]) -> None:
    """Look after each gateway ten times a second, each time over a new connection."""

    async def one(port: int, request: bytes) -> None:
        while goes_on():
            await send_request(note, time.monotonic(), None, port, request)
            await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as tasks:
        for port, request in itertools.product(ports, PROBES):
            tasks.create_task(one(port, request))


async def timer(note: Note, goes_on: GoesOn) -> None:
    """Only wait: how much later than it should it wakes up is what the machine delays everybody by."""
    while goes_on():
        due = time.monotonic() + 0.01
        await asyncio.sleep(0.01)
        note(Sample(due, time.monotonic() - due, 200))


@contextmanager
def background_process(run: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Any]]:
    """Run a function in a process of its own; yield a pipe to receive from, and an event that ends it.

    The function gets the other end of the pipe, the event, and the arguments.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    stop = multiprocessing.Event()
    process = multiprocessing.Process(target=run, args=(sender, stop, *arguments), daemon=True)
    process.start()
    yield receiver, stop
    process.join()


@contextmanager
def traffic(**kinds: tuple[Any, ...]) -> Iterator[dict[str, Samples]]:
    """Send traffic of several kinds, each a function of this file and its arguments, in a process of its own.

    Yield what is answered to each, which is there at the end of the context.
    """
    samples = {name: Samples() for name in kinds}
    with ExitStack() as running:
        processes = {name: running.enter_context(background_process(_send, *kinds[name])) for name in kinds}
        try:
            yield samples
        finally:
            for _, stop in processes.values():
                stop.set()
            for name, (receiver, _) in processes.items():
                samples[name].extend(receiver.recv())


def _send(sender: Any, stop: Any, kind: Callable[..., Any], *arguments: Any) -> None:
    found: list[Sample] = []
    uvloop.run(kind(found.append, lambda: not stop.is_set(), *arguments))
    sender.send(found)
