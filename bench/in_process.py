"""An application that answers in this process, so that its CPU time is known to the microsecond."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.load import Answer, Conversation, Taken
from bench.systems import Running

PORT = 8000
"""At which nobody listens; it has to have one."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class InProcess(Running):
    """A WSGI application that is asked without a wire."""

    application: WSGI

    def hold(self, conversations: Sequence[Conversation], seconds: float = float("inf")) -> Taken:
        """Hold one conversation after the other to its end; seconds are those of CPU, and have no limit."""
        each: list[float] = []
        for conversation in conversations:
            talk = Talk(self.application, conversation)
            while talk.goes_on:
                each.append(talk.spend())
        return Taken(sum(each), each)


class Talk:
    """A conversation with an application, held request by request."""

    def __init__(self, application: WSGI, conversation: Conversation) -> None:
        self._application = application
        self._conversation = conversation
        self._request = next(conversation, None)

    @property
    def goes_on(self) -> bool:
        """Whether there is something left to ask."""
        return self._request is not None

    def spend(self) -> float:
        """Send the next request; return the seconds of CPU until its answer is complete. Raises `Wrong`."""
        if self._request is None:
            raise RuntimeError("too few requests were prepared")
        environ, said = environ_of(self._request), _Said()
        began = time.process_time()
        parts = self._application(environ, said)
        body = b"".join(parts)
        if (close := getattr(parts, "close", None)) is not None:
            close()
        seconds = time.process_time() - began
        try:
            self._request = self._conversation.send(Answer(said.status, body))
        except StopIteration:
            self._request = None
        return seconds


class _Said:
    """What an application calls to start its response."""

    __slots__ = ("status",)

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        self.status = int(status[:3])


def environ_of(request: bytes) -> dict[str, Any]:
    """Return what the server makes of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, protocol = first.split(" ")
    environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "RAW_URI": path,
        "SERVER_PROTOCOL": protocol,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(PORT),
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "ags.operations": False,
    }
    for line in lines:
        name, value = line.split(": ", 1)
        name = name.upper().replace("-", "_")
        environ[name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"] = value
    return environ


def floor(environment: dict[str, str]) -> InProcess:
    """Return the floor; it finds its environment in that of this process."""
    os.environ.update(environment)
    from bench import floor_wsgi  # reads the environment

    return InProcess(PORT, os.getpid(), floor_wsgi.application)


def ags(environment: dict[str, str]) -> InProcess:
    """Return AGS as its worker runs it; it finds its environment in that of this process, and no other."""
    for name in [name for name in os.environ if name.startswith("AGS_")]:
        del os.environ[name]
    os.environ.update(environment)
    os.environ["DJANGO_SETTINGS_MODULE"] = "ags.settings"
    from ags.operations.database import bound_all_statements
    from ags.wsgi import application  # reads the environment, and sets Django up

    bound_all_statements()
    return InProcess(PORT, os.getpid(), application)


@contextmanager
def log_thrown_away() -> Iterator[None]:
    """Let all that is written to standard error be written to nowhere, so that it costs what it costs."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
