"""Redis, which can be made to fail."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.support.markers import find_program
from tests.support.upstream.process import accepts_connections, reserved_port, stop_process
from tests.support.waiting import PATIENCE, wait_until

PASSWORD = "marker0815-of-redis"


class RedisServer:
    """A running server, or one that was made to fail. `url` contains its password."""

    def __init__(self, port: int, folder: Path) -> None:
        self.port = port
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{port}/3"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @contextmanager
    def run(self) -> Iterator[None]:
        """Run the server until the context ends. It may be killed and restarted in between."""
        self.start()
        try:
            yield
        finally:
            if self._process is not None:
                self._process.send_signal(signal.SIGCONT)
                stop_process(self._process)

    def start(self) -> None:
        """Start the server with an empty database, and wait until it accepts connections."""
        command = [
            find_program("redis-server") or "redis-server",
            *("--port", str(self.port), "--bind", "127.0.0.1", "--requirepass", PASSWORD),
            *("--save", "", "--dir", str(self._folder), "--maxmemory-policy", "noeviction"),
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(lambda: accepts_connections(self.port), "Redis does not start")

    def kill(self) -> None:
        """Kill the server, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Stop the server: the kernel accepts connections, and nothing responds."""
        assert self._process is not None
        process = psutil.Process(self._process.pid)
        process.suspend()
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "Redis does not stop")

    def resume(self) -> None:
        """Continue after `stop`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def fill(self) -> None:
        """Make it refuse writes because its memory is full."""
        self.client().config_set("maxmemory", "1")

    def free(self) -> None:
        """Make it accept writes again."""
        self.client().config_set("maxmemory", "0")

    def list_keys(self) -> list[str]:
        """Return the keys in its database."""
        return sorted(key.decode() for key in self.client().scan_iter())

    def client(self) -> Any:
        """Return a client of the library."""
        from redis import Redis

        return Redis.from_url(self.url, socket_timeout=PATIENCE)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """Run Redis on a port that no other process gets."""
    with reserved_port() as port:
        server = RedisServer(port, folder)
        with server.run():
            yield server
