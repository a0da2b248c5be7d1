"""What happens to AGS while its log is not read: `python -m bench.blocked_log`.

Runs one process of AGS on a temporary PostgreSQL, with its standard error in a pipe that is not read. A
head-end requests session tokens, one after the other, until there is no response; then `/healthz` is
requested. Then the pipe is read, and the missing responses arrive.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from bench import postgresql
from bench.load import get
from bench.systems import ROOT, ags, asking, free_port

LIMIT = 60.0
"""Seconds to wait for the server to listen, and for a response once the log is read."""


@contextmanager
def serving(database: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server with its standard error in a pipe."""
    settings = ags.environment(database, port, AGS_WORKERS="1")
    ags.prepare(settings)
    server = subprocess.Popen(
        [sys.executable, "manage.py", "serve"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **settings},
        stderr=subprocess.PIPE,
    )
    try:
        yield server
    finally:
        server.terminate()
        server.communicate()  # reads the pipe, because the server may be writing


def connect(port: int) -> socket.socket:
    """Return a connection, once the server listens."""
    limit = time.monotonic() + LIMIT
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except OSError:
            if time.monotonic() > limit:
                raise
            time.sleep(0.1)


def is_answered(wire: socket.socket, seconds: float) -> bool:
    """Return True if there is a response within `seconds`. Raises ValueError if it is not a 200."""
    wire.settimeout(seconds)
    try:
        answer = wire.recv(65536)
    except TimeoutError:
        return False
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise ValueError(answer[:300])
    return True


def read_until_answered(pipe: int, due: set[socket.socket]) -> bool:
    """Read the pipe until there is a response on each connection; return False if one is missing."""
    while due:
        readable, _, _ = select.select([pipe, *due], [], [], LIMIT)
        if not readable:
            return False
        if pipe in readable:
            os.read(pipe, 65536)
        due = {wire for wire in due if wire not in readable or not is_answered(wire, LIMIT)}
    return True


def main() -> int:
    """Measure and print. Fail if there is no response once the log is read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patience", type=float, default=5.0, help="seconds to wait for a response")
    patience = parser.parse_args().patience
    with postgresql.server() as database, ExitStack() as held:
        port = free_port()
        server = held.enter_context(serving(database.create("blocked"), port))
        pipe = server.stderr.fileno()  # type: ignore[union-attr] # it is a pipe
        size = fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ)
        wire = held.enter_context(connect(port))
        answered = 0
        wire.sendall(asking.get_session_token())
        while is_answered(wire, patience):
            answered += 1
            wire.sendall(asking.get_session_token())
        probe = held.enter_context(connect(port))
        probe.sendall(get("/healthz", {}))
        health = is_answered(probe, patience)
        began = time.monotonic()
        goes_on = read_until_answered(pipe, {wire, probe})
        took = time.monotonic() - began
    print(f"{answered} responses until the {size} bytes of the pipe were full")
    print(f"then {'a response' if health else 'no response'} of /healthz within {patience:g} s")
    print(f"once the log was read, {'all' if goes_on else 'not all'} responses after {took:.3f} s")
    return int(health or not goes_on)


if __name__ == "__main__":
    sys.exit(main())
