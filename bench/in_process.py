"""An application that answers in this process and this thread, so that its function calls can be counted."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from bench.load import Answer, Conversation, Taken
from bench.systems import Running

PORT = 8000
"""Part of the settings; nothing listens on it."""

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Profile = Callable[[FrameType, str, Any], None]
"""A function for `sys.setprofile`."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response as the application hands it to its server, which adds headers of its own."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes

    def size(self) -> int:
        """Return its bytes on the wire, without the server's headers."""
        fields = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        return len(f"HTTP/1.1 {self.status}\r\n{fields}\r\n") + len(self.body)


@dataclass(frozen=True, slots=True)
class InProcess(Running):
    """A WSGI application that is called directly, without a server."""

    application: WSGI

    def hold(self, conversations: Sequence[Conversation], seconds: float = float("inf")) -> Taken:
        """Hold one conversation after the other to its end. Measures no time and has no limit."""
        for conversation in conversations:
            for _ in exchanges(conversation, self.respond):
                pass
        return Taken(0.0)

    def respond(self, request: bytes, profile: Profile | None = None) -> Response:
        """Return the response to a request as it goes over the wire; `profile` sees the application run."""
        environ, start_response = make_environ(request), _StartResponse()
        sys.setprofile(profile)
        try:
            parts = self.application(environ, start_response)
            body = b"".join(parts)
            if (close := getattr(parts, "close", None)) is not None:
                close()
        finally:
            sys.setprofile(None)
        return Response(start_response.status, start_response.headers, body)


def exchanges(
    conversation: Conversation, respond: Callable[[bytes], Response]
) -> Iterator[tuple[bytes, Response]]:
    """Hold a conversation; yield each request and its response, once it is checked. Raises `Wrong`."""
    following = next(conversation, None)
    while following is not None:
        request = following
        response = respond(request)
        try:
            following = conversation.send(Answer(int(response.status[:3]), response.body))
        except StopIteration:
            following = None
        yield request, response


class _StartResponse:
    __slots__ = ("headers", "status")

    def __call__(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        self.status, self.headers = status, headers


def make_environ(request: bytes) -> dict[str, Any]:
    """Return the WSGI environ that the server makes of a request."""
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


def ags(environment: dict[str, str]) -> InProcess:
    """Return AGS as its worker runs it. Replaces the AGS settings in the environment of this process."""
    for name in [name for name in os.environ if name.startswith("AGS_")]:
        del os.environ[name]
    os.environ.update(environment)
    os.environ["DJANGO_SETTINGS_MODULE"] = "ags.settings"
    application = as_wsgi()  # reads the environment, and sets Django up
    from ags.operations.database import bound_all_statements

    bound_all_statements()
    return InProcess(PORT, os.getpid(), application)


def as_wsgi() -> WSGI:
    """Return what the threads of AGS run, without the server and the loop before it."""
    from ags.asgi import application

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        response = application.handler.respond(environ)
        start_response(f"{response.status_code} {response.reason_phrase}", list(response.items()))
        return [response.content]

    return respond


@contextmanager
def discard_stderr() -> Iterator[None]:
    """Write standard error, to which AGS logs, to /dev/null."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
