"""The real server as a process of its own, and what talks to it over a socket."""

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
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import psutil
import psycopg
from django.conf import settings
from django.db import connection

from tests.settings import ENVIRONMENT
from tests.upstream.process import reserved_port
from tests.waiting import PATIENCE, wait_until

IDLE = 60.0
"""Seconds after which a connection is not used again: after 75 the server hangs up (`manage.py serve`)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came over the wire; named as in Django's test client, so that `HeadEnd` can read it."""

    status_code: int
    headers: http.client.HTTPMessage
    content: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.content)


class Client:
    """One persistent connection. Belongs to one thread; a connection that breaks in use is an error."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self._used = time.monotonic()

    def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self._ask("GET", path, None, headers or {})

    def generic(
        self,
        method: str,
        path: str,
        data: str | bytes,
        content_type: str = "application/json",
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Any method, with a body."""
        return self._ask(method, path, data, {"Content-Type": content_type, **(headers or {})})

    def _ask(self, method: str, path: str, body: str | bytes | None, headers: Mapping[str, str]) -> Answer:
        if time.monotonic() - self._used > IDLE:
            self.close()
        self._connection.request(method, path, body, dict(headers))
        response = self._connection.getresponse()
        answer = Answer(response.status, response.headers, response.read())
        self._used = time.monotonic()
        return answer

    def close(self) -> None:
        """Hang up. The next request connects anew."""
        self._connection.close()


def exchange(
    port: int, data: bytes, *, half_close: bool = False, heads: int = 0, piece: int | None = None
) -> list[Answer]:
    """Send these bytes; return all answers up to the end of the connection. The first `heads` have no body.

    Ask for `Connection: close` at the end of what is sent, or be refused: else this waits in vain.
    `piece`: bytes of each write; None for one write of all.
    """
    step = piece or len(data)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as wire:
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for at in range(0, len(data), step):
                wire.sendall(data[at : at + step])
            if half_close:
                wire.shutdown(socket.SHUT_WR)
        except ConnectionError:  # refused before all was sent; the answer is there nevertheless
            pass
        received = io.BytesIO(b"".join(iter(lambda: wire.recv(65536), b"")))
    answers: list[Answer] = []
    while line := received.readline():
        status = int(line.split()[1])
        headers = http.client.parse_headers(received)
        body = b"" if len(answers) < heads else received.read(int(headers.get("Content-Length", 0)))
        answers.append(Answer(status, headers, body))
    return answers


def is_uuid(text: str) -> bool:
    """True if a correlation ID has the form of those that AGS creates."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def database_url() -> str:
    """The database of the running tests, as a server must be told of it."""
    its = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{its['NAME']}"
    login = ":".join(quote(str(its[part]), safe="") for part in ("USER", "PASSWORD"))
    socket_folder = its["OPTIONS"].get("host") or (its["HOST"] if its["HOST"].startswith("/") else "")
    if socket_folder:
        return f"postgresql://{login}@/{its['NAME']}?host={socket_folder}"
    return f"postgresql://{login}@{its['HOST']}:{its['PORT'] or 5432}/{its['NAME']}"


@contextmanager
def empty_database(suffix: str, options: str = "") -> Iterator[str]:
    """Create a database on the PostgreSQL of the tests, yield its address, and drop it."""
    name = f"{connection.settings_dict['NAME']}_{suffix}"
    with psycopg.connect(database_url(), autocommit=True) as its:
        its.execute(f'DROP DATABASE IF EXISTS "{name}"')  # of a run that was ended
        its.execute(f'CREATE DATABASE "{name}" {options}')
        try:
            yield database_url().replace(f"/{connection.settings_dict['NAME']}", f"/{name}")
        finally:
            its.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def environment(**changes: str) -> dict[str, str]:
    """A production environment: that of the tests, without debugging."""
    return {
        "PATH": os.environ["PATH"],
        # What a server runs is measured where what the tests run is.
        **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")},
        **ENVIRONMENT,
        "AGS_PROVIDERS": "providers.operator_token",
        "DEBUG": "off",
        "DATABASE_URL": database_url(),
        **changes,
    }


def manage(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a command of manage.py to its end."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=settings.BASE_DIR,
        env=environment(**changes),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class ServerProcess:
    """`manage.py serve` on a free port of this machine, from entering the context to leaving it.

    One worker process unless told otherwise: what one answer shows then holds for the whole server, and two
    servers are two processes that share nothing but the database, which is what two workers are.
    """

    def __init__(self, **changes: str) -> None:
        self._held = ExitStack()
        self.port = self._held.enter_context(reserved_port())
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = environment(
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
            wait_until(lambda: self._answers("/readyz"), f"{self.url} is not ready")
        except BaseException:
            self.kill()
            raise
        return self

    def command(self) -> list[str]:
        """The command that starts it."""
        return [sys.executable, "manage.py", "serve"]

    def start(self) -> None:
        """Start it and wait for its first answer: it need not be ready."""
        with tempfile.NamedTemporaryFile(prefix="ags-server-", suffix=".log", delete=False) as log:
            self._log = Path(log.name)
            self._process = subprocess.Popen(
                self.command(),
                cwd=settings.BASE_DIR,
                env=self._environment,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # a process group of its own: all of it can be ended, and looked for
            )
        try:
            wait_until(lambda: self._answers("/healthz"), f"{self.url} does not answer")
        except BaseException:
            self.kill()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _answers(self, path: str) -> bool:
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
        """All that it has written to standard error so far."""
        return self._log.read_text()

    def client(self) -> Client:
        """A new connection, closed at the latest when the server is stopped."""
        client = Client(self.port)
        self._clients.append(client)
        return client

    def own_client(self) -> Client:
        """The connection of the calling thread."""
        if not hasattr(self._own, "client"):
            self._own.client = self.client()
        client: Client = self._own.client
        return client

    def get(self, path: str, **options: Any) -> Answer:
        """GET over the connection of the calling thread."""
        return self.own_client().get(path, **options)

    def generic(self, method: str, path: str, data: str | bytes, *args: Any, **options: Any) -> Answer:
        """Any method, with a body, over the connection of the calling thread."""
        return self.own_client().generic(method, path, data, *args, **options)

    @property
    def pid(self) -> int:
        """The process that minds those that answer."""
        return self._process.pid

    def workers(self) -> list[int]:
        """The processes that answer."""
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def connections(self) -> dict[int, str]:
        """The states of the TCP connections that the workers hold, by the port of the client."""
        return {
            one.raddr.port: one.status
            for worker in self.workers()
            for one in psutil.Process(worker).net_connections("tcp4")
            if one.raddr
        }

    def terminate(self) -> None:
        """Ask it to stop, and do not wait."""
        os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """Wait for its end; return its exit status."""
        return self._process.wait(PATIENCE)

    def stop(self) -> None:
        """Stop it as an operator does; fail if anything of it is left."""
        for client in self._clients:
            client.close()
        if self._process.poll() is None:
            self.terminate()
        try:
            self.wait()
            left, log = self._processes_left(), self.log
        finally:
            self.kill()
        assert not left, f"processes of the server outlived it:\n{log}"

    def kill(self) -> None:
        """End whatever is left of it."""
        if self._processes_left():
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._log.unlink(missing_ok=True)
        self._held.close()

    def _processes_left(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True
