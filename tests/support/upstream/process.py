"""Servers of other projects, as child processes that end with the tests."""

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

from tests.support.waiting import PATIENCE, wait_until

ATTEMPTS = 10
"""How often a server is started if another process takes its port."""

# If the tests are killed, the kernel ends the servers.
_WITH_US = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []


class AddressInUse(Exception):
    """Another process took the port before the server bound it."""


@contextmanager
def run_process(
    prepare: Callable[[], list[str]], log: Path, is_ready: Callable[[], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the context ends, or at the latest until this process ends.

    `prepare` chooses the ports and returns the command. It is called again if another process takes a port.
    """
    for _ in range(ATTEMPTS - 1):
        try:
            server = _start(prepare(), log, is_ready)
            break
        except AddressInUse:
            continue
    else:
        server = _start(prepare(), log, is_ready)
    try:
        yield server
    finally:
        stop_process(server)


def _start(command: list[str], log: Path, is_ready: Callable[[], bool]) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*_WITH_US, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: server.poll() is not None or is_ready(), f"{command[0]} does not start")
        if server.poll() is not None:
            text = log.read_text(errors="replace")
            failure = AddressInUse if "Address already in use" in text else RuntimeError
            raise failure(f"{command[0]} does not start: {text[-2000:]}")
    except BaseException:
        stop_process(server)
        raise
    return server


def stop_process(server: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """Terminate a process, and kill it if it does not end."""
    server.terminate()
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait(PATIENCE)


class Lines:
    """The lines that a process writes to a pipe, with a timeout for each."""

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
        """Return the next line, or an empty string after the last."""
        try:
            return self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line within {PATIENCE} s") from None

    def close(self) -> None:
        """Close the pipe after the process has ended."""
        self._thread.join(PATIENCE)
        self._pipe.close()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """Return a free port of loopback. Another process may take it before it is used."""
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def reserved_port() -> Iterator[int]:
    """Yield a port of loopback that no other process gets.

    It is bound but not listening, so a server that sets SO_REUSEADDR can bind it too.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def accepts_connections(port: int) -> bool:
    """Return True if a server listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True
