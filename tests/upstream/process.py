"""Servers of other people, started as children of the tests, which end with them."""

from __future__ import annotations

import queue
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tests.waiting import PATIENCE, wait_until

ATTEMPTS = 10
"""How often a server is started again because another process has taken its port."""

# Tests that are killed end nothing themselves: then the system does.
_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class AddressInUse(Exception):
    """Another process took the port before the server bound it."""


@contextmanager
def running(
    prepare: Callable[[], list[str]], log: Path, is_ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server in the foreground until the context ends, or, at the latest, the process that began it.

    `prepare` chooses the ports and returns the command. It is called again when a port was taken meanwhile.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            server = _started(prepare(), log, is_ready)
            break
        except AddressInUse:
            continue
    else:
        server = _started(prepare(), log, is_ready)
    try:
        yield server
    finally:
        end(server)


def _started(command: list[str], log: Path, is_ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
    with log.open("wb") as said:
        server = subprocess.Popen([*_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        wait_until(lambda: server.poll() is not None or is_ready(), f"{command[0]} does not start")
        if server.poll() is not None:
            told = log.read_text(errors="replace")
            failure = AddressInUse if "Address already in use" in told else RuntimeError
            raise failure(f"{command[0]} does not start: {told[-2000:]}")
    except BaseException:
        end(server)
        raise
    return server


def end(server: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Terminate a process, and kill it where that is not enough."""
    server.terminate()
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(PATIENCE)


class Lines:
    """The lines that a process writes to a pipe. The wait for each of them has an end."""

    def __init__(self, pipe: IO[str]) -> None:
        self._pipe = pipe
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self._pipe:
            self._lines.put(line)
        self._lines.put("")

    def next(self) -> str:
        """Return the next line, or nothing after the last."""
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line within {PATIENCE} s") from None

    def close(self) -> None:
        """Close the pipe, once the process has ended."""
        self._thread.join(PATIENCE)
        self._pipe.close()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of loopback that nobody listens on. Another process may take it before it is used."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port of loopback that the system gives to nobody else meanwhile.

    It is bound and nobody listens, so a server that sets SO_REUSEADDR can bind it, too.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True
