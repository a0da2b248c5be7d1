"""Server processes, and HTTP clients for them."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil
from django.conf import settings

from tests.settings import ENVIRONMENT
from tests.support.database import database_url
from tests.support.upstream.process import reserved_port
from tests.support.waiting import PATIENCE, wait_until

IDLE = 60.0
"""Seconds after which an idle connection is not reused; the server closes it after 75."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response, with the attribute names of Django's test client, which `HeadEnd` uses."""

    status_code: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        return json.loads(self.content)


class Client:
    """One persistent connection, for one thread. Does not reconnect after an error."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._used_at = time.monotonic()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Response:
        return self._send("GET", path, None, headers or {})

    def generic(
        self,
        method: str,
        path: str,
        data: str | bytes,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        return self._send(method, path, data, {"Content-Type": content_type, **(headers or {})})

    def _send(self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]) -> Response:
        if time.monotonic() - self._used_at > IDLE:
            self.close()
        self._connection.request(method, path, body, dict(headers))
        raw = self._connection.getresponse()
        response = Response(raw.status, raw.headers, raw.read())
        self._used_at = time.monotonic()
        return response

    def close(self) -> None:
        """Close the connection. The next request reconnects."""
        self._connection.close()


def exchange_bytes(
    port: int, data: bytes, *, half_close: bool = False, heads: int = 0, piece: int | None = None
) -> list[Response]:
    """Send bytes; return all responses until the server closes the connection.

    The data must make the server close the connection, e.g. with `Connection: close`.
    `heads`: number of responses without a body, at the beginning. `piece`: bytes of each write; None for one.
    """
    step = piece or len(data)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(data), step):
                wire.sendall(data[at : at + step])
            if half_close:
                wire.shutdown(socket.SHUT_WR)
        except ConnectionError:  # rejected before everything was sent; the response can be read nevertheless
            pass
        received = io.BytesIO(b"".join(iter(lambda: wire.recv(65536), b"")))
    responses: list[Response] = []
    while line := received.readline():
        status = int(line.split()[1])
        headers = http.client.parse_headers(received)
        body = b"" if len(responses) < heads else received.read(int(headers.get("Content-Length", 0)))
        responses.append(Response(status, headers, body))
    return responses


def is_uuid(text: str) -> bool:
    """Return True if a correlation ID has the format of those that AGS generates."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def server_environment(**changes: str) -> dict[str, str]:
    """Return the environment variables of a production process."""
    return {
        "PATH": os.environ["PATH"],
        # Coverage of the tests includes the servers.
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        **ENVIRONMENT,
        "AGS_PROVIDERS": "providers.operator_token",
        "DEBUG": "off",
        "DATABASE_URL": database_url(),
        **changes,
    }


def run_manage(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command of manage.py and wait for it."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=server_environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class ServerProcess:
    """A context manager that runs `manage.py serve` on a free port.

    By default with one worker process, so that each response shows the state of the whole server. Two servers
    are then like two workers: they share only the database.
    """

    def __init__(self, **changes: str) -> None:
        self._held = ExitStack()
        self.port = self._held.enter_context(reserved_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = server_environment(
            **{
                "AGS_BIND": f"127.0.0.1:{self.port}",
                "AGS_WORKERS": "1",
                "AGS_LOG_LEVEL": "WARNING",
                **changes,
            }
        )
        self._own = threading.local()
        self._clients: list[Client] = []

    def __enter__(self) -> Self:
        self.start()
        try:
            wait_until(lambda: self._is_ok("/readyz"), f"{self.url} is not ready")
        except BaseException:
            self.kill()
            raise
        return self

    def command(self) -> list[str]:
        """Return the command of the process."""
        return [sys.executable, "manage.py", "serve"]

    def start(self) -> None:
        """Start the process and wait for its first response. It need not be ready."""
        with tempfile.NamedTemporaryFile(prefix="ags-server-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            self._process = subprocess.Popen(
                self.command(),
                cwd=settings.BASE_DIR,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a separate process group, for killing and finding its processes
            )
        try:
            wait_until(lambda: self._is_ok("/healthz"), f"{self.url} does not respond")
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _is_ok(self, path: str) -> bool:
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with {self._process.returncode}:\n{self.log}")
        client = Client(self.port)
        try:
            return client.get(path).status_code == 200
        except OSError:
            return False
        finally:
            client.close()

    @property
    def log(self) -> str:
        """The standard error output so far."""
        return self._log.read_text()

    def request_line(self, correlation_id: str) -> dict[str, Any]:
        """Return the line of a request in the access log, which is written after the response."""

        def matching() -> list[str]:
            return [line for line in self.log.splitlines() if f'"correlation_id": "{correlation_id}"' in line]

        wait_until(matching, f"the request {correlation_id} is not logged")
        (line,) = matching()
        fields: dict[str, Any] = json.loads(line)
        return fields

    def client(self) -> Client:
        """Return a new connection. It is closed when the server stops."""
        client = Client(self.port)
        self._clients.append(client)
        return client

    def own_client(self) -> Client:
        """Return the connection of the calling thread."""
        if not hasattr(self._own, "client"):
            self._own.client = self.client()
        client: Client = self._own.client
        return client

    def get(self, path: str, **options: Any) -> Response:
        return self.own_client().get(path, **options)

    def generic(self, method: str, path: str, data: str | bytes, *args: Any, **options: Any) -> Response:
        return self.own_client().generic(method, path, data, *args, **options)

    @property
    def pid(self) -> int:
        """The parent process."""
        return self._process.pid

    def workers(self) -> list[int]:
        """Return the worker processes."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def connections(self) -> dict[int, str]:
        """Return the states of the workers' TCP connections by client port."""
        return {
            tcp.raddr.port: tcp.status
            for worker in self.workers()
            for tcp in psutil.Process(worker).net_connections("tcp4")
            if tcp.raddr
        }

    def terminate(self) -> None:
        """Send SIGTERM and do not wait."""
        os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the process; return its exit status."""
        return self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Send SIGTERM and wait; fail if any process is left."""
        for client in self._clients:
            client.close()
        if self._process.poll() is None:
            self.terminate()
        try:
            self.wait()
            has_leftovers, log = self._has_processes(), self.log
        finally:
            self.kill()
        assert not has_leftovers, f"processes of the server are left:\n{log}"

    def kill(self) -> None:
        """Kill all remaining processes."""
        if self._has_processes():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._log.unlink(missing_ok=True)
        self._held.close()

    def _has_processes(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
