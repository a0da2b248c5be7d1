"""The systems that are compared: each a folder or a file that names a `System`.

To add one, write a function that starts it on an empty database and yields its port and first process, and
for each kind of work its requests, and a conversation that checks every answer.
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
"""Server processes of each system, where it has a choice: one for each CPU of the machine of the figures."""


@dataclass(frozen=True, slots=True)
class Running:
    """A system that takes requests. `pid` is its first process; all others descend from it."""

    port: int
    pid: int

    def hold(self, conversations: Sequence[Conversation], seconds: float = float("inf")) -> load.Taken:
        """Hold the conversations, at once; return what they took. Raises as `load.run`."""
        return load.run(self.port, conversations, seconds)


Conversations = Callable[[Running, int, int], list[Conversation]]
"""Makes so many conversations, which together find so many requests prepared.

Prepared, since what signs requests while others are measured takes the machine from them.
"""


def prepared(
    requests: Callable[[Running], Iterable[bytes]], conversation: Callable[[Iterable[bytes]], Conversation]
) -> Conversations:
    """Return the conversations that share the requests: each takes the next one when it has its answer."""

    def make(running: Running, number: int, most: int) -> list[Conversation]:
        asked = iter(list(islice(requests(running), most)))
        return [conversation(asked) for _ in range(number)]

    return make


class Missing(Exception):
    """The system cannot be run here. The message says what it lacks."""


@dataclass(frozen=True, slots=True, eq=False)
class System:
    """One that is compared, and what it can do.

    `start` is given the address of an empty database. Raises `Missing`. `work` has for each kind of work what
    makes its conversations. `rows` is the SQL that counts what is stored in its database: as many more as it
    has answered, in the kinds of work that store something.
    """

    name: str
    version: Callable[[], str]
    start: Callable[[str], AbstractContextManager[Running]]
    work: Mapping[str, Conversations]
    rows: str


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def process(
    words: list[str], environment: Mapping[str, str], port: int, folder: Path = ROOT
) -> Iterator[Running]:
    """Run a server until it listens, and for as long as it is used; what it says is shown if it fails."""
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
