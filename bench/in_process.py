"""An application that runs in this process and thread, so that its function calls can be counted."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvloop

from bench.load import Answer, Conversation, LoadResult
from bench.systems import Running

PORT = 8000
"""The port in the settings. The process does not listen on it."""

Message = MutableMapping[str, Any]
ASGI = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Profile = Callable[[FrameType, str, Any], None]
"""A function for `sys.setprofile`."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the application. A server would add headers."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes

    def size(self) -> int:
        """Return its bytes on the wire, without the headers of a server."""
        fields = b"".join(b"%b: %b\r\n" % header for header in self.headers)
        status = f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
        return len(status) + len(fields) + len("\r\n") + len(self.body)


@dataclass(frozen=True, slots=True)
class InProcess(Running):
    """An ASGI application that is called without a server."""

    application: ASGI
    runner: asyncio.Runner

    def hold(self, conversations: Sequence[Conversation], seconds: float = float("inf")) -> LoadResult:
        """Run one conversation after the other to its end. Measures no time and has no limit."""
        for conversation in conversations:
            for _ in exchanges(conversation, self.respond):
                pass
        return LoadResult(0.0)

    def respond(self, request: bytes, profile: Profile | None = None) -> Response:
        """Return the response to a request in the form of HTTP/1.1. `profile` profiles the application."""
        scope, body = make_scope(request)
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        with _profiled(profile):
            self.runner.get_loop().run_until_complete(_call(self.application, scope, receive, send))
        start, *parts = messages
        return Response(start["status"], start["headers"], b"".join(part["body"] for part in parts))


async def _call(application: ASGI, *arguments: Any) -> None:
    await application(*arguments)


_profile: Profile | None = None


def _dispatch(frame: FrameType, event: str, argument: Any) -> None:
    if _profile is not None:
        _profile(frame, event, argument)


@contextmanager
def _profiled(profile: Profile | None) -> Iterator[None]:
    """Profile this thread and those of the application."""
    global _profile  # noqa: PLW0603 - shared by all threads
    _profile = profile
    sys.setprofile(_dispatch if profile else None)
    try:
        yield
    finally:
        sys.setprofile(None)
        _profile = None


def exchanges(
    conversation: Conversation, respond: Callable[[bytes], Response]
) -> Iterator[tuple[bytes, Response]]:
    """Run a conversation; yield each request and its response, once it is checked. Raises `WrongAnswer`."""
    following = next(conversation, None)
    while following is not None:
        request = following
        response = respond(request)
        try:
            following = conversation.send(Answer(response.status, response.body))
        except StopIteration:
            following = None
        yield request, response


def make_scope(request: bytes) -> tuple[Message, bytes]:
    """Return the ASGI scope of a request, and its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    method, path, protocol = first.split(b" ")
    headers = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": protocol.removeprefix(b"HTTP/").decode(),
        "method": method.decode(),
        "scheme": "http",
        "path": path.decode(),
        "raw_path": path,
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", PORT),
        "extensions": {"ags.buffered": {}},
    }
    return scope, body


@contextmanager
def ags(environment: dict[str, str]) -> Iterator[InProcess]:
    """Run AGS as a worker does. Replaces the AGS settings in the environment of this process."""
    for name in [name for name in os.environ if name.startswith("AGS_")]:
        del os.environ[name]
    os.environ.update(environment)
    os.environ["DJANGO_SETTINGS_MODULE"] = "ags.settings"
    with start_application() as running:  # its import reads the environment and sets up Django
        yield running


@contextmanager
def start_application() -> Iterator[InProcess]:
    """Run AGS with the settings of this process."""
    from ags.asgi import application

    threading.setprofile(_dispatch)  # for threads that the application starts
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(application.start())
        try:
            yield InProcess(PORT, os.getpid(), application, runner)
        finally:
            runner.run(application.stop())
            threading.setprofile(None)


@contextmanager
def discard_stderr() -> Iterator[None]:
    """Redirect standard error, the log of AGS, to /dev/null."""
    kept = os.dup(2)
    with open(os.devnull, "wb") as null:  # noqa: PTH123 - for its descriptor
        os.dup2(null.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
