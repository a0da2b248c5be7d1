"""The systems that are compared: each is a file or folder that defines a `System`.

To add one, write a function that starts it on an empty database and yields its port and first process, and
for each kind of work its requests, and a conversation that checks every response.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from bench import load
from bench.load import Conversation

ROOT = Path(__file__).resolve().parents[2]

WORKERS = 2
"""Server processes of each system, if that can be set: one for each CPU of the machine that was measured."""


@dataclass(frozen=True, slots=True)
class Running:
    """A running system. `pid` is its first process; all others are its descendants."""

    port: int
    pid: int

    def hold(self, conversations: Sequence[Conversation], seconds: float = float("inf")) -> load.LoadResult:
        """Run the conversations at the same time; return the latencies. Raises the errors of `load.run`."""
        return load.run(self.port, conversations, seconds)


ConversationFactory = Callable[[Running, int, int], list[Conversation]]
"""Makes a number of conversations, with a number of requests that are prepared for all of them.

They are prepared because signing uses CPU, which must not happen while a system is measured.
"""


def conversation_factory(
    requests: Callable[[Running], Iterable[bytes]], conversation: Callable[[Iterable[bytes]], Conversation]
) -> ConversationFactory:
    """Return a factory of conversations that share the requests: each sends the next one after a response."""

    def make(running: Running, number: int, max_requests: int) -> list[Conversation]:
        shared = iter(list(islice(requests(running), max_requests)))
        return [conversation(shared) for _ in range(number)]

    return make


class Missing(Exception):
    """The system cannot be run here. The message says what is missing."""


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """A system that is compared.

    `start` gets the URL of an empty database. Raises `Missing`. `work` has a factory of conversations for
    each kind of work. `rows` is SQL that counts the stored rows, which grow by one for each response of a
    kind of work that stores something.
    """

    name: str
    version: Callable[[], str]
    start: Callable[[str], AbstractContextManager[Running]]
    work: Mapping[str, ConversationFactory]
    rows: str


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(
    words: list[str], environment: Mapping[str, str], port: int, folder: Path = ROOT
) -> Iterator[Running]:
    """Run a server within the block, which begins when it listens. Its output is shown if it does not."""
    log = Path(f"/tmp/ags-bench-{port}.log")  # noqa: S108
    with log.open("wb") as said:
        running = subprocess.Popen(
            words, cwd=folder, env={"PATH": os.environ["PATH"], **environment}, stdout=said, stderr=said
        )
    try:
        _wait_for(running, port, log)
        yield Running(port, running.pid)
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        log.unlink()


def _wait_for(running: subprocess.Popen[bytes], port: int, log: Path) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit and running.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{running.args!r} does not listen:\n{log.read_text()}")
