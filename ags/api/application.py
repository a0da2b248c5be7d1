"""The ASGI application: whole requests go to the API, or by way of Django to the pages of staff."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.http.response import HttpResponseBase

from ags.api import middleware
from ags.api.error_pages import is_admin_path
from ags.api.errors import REQUEST_MALFORMED, ApiError, bare
from ags.api.request import body
from ags.api.request.gateway_request import GatewayRequest
from ags.database import close_database, open_database
from ags.database.engine.base import bound_all_statements
from ags.database.threads import STAFF, close_threads, open_threads, run_in_thread
from ags.operations import migrations_state
from providers.contract import UpstreamSettings
from providers.registry import strategies
from providers.upstream.bulkhead import MAX_CONCURRENT_CALLS

VERIFICATION_THREADS = 8
"""Strategies that block which a process calls at once.

Where they may wait for upstreams, there are as many more as may do so at once.
"""

BODY_LIMIT = 10.0
"""Seconds in which a body arrives, on a server that hands on what has not arrived."""

SINGLE = {b"host", b"content-type", b"content-length"}
"""Headers that no request has twice."""

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class StaffRequest(WSGIRequest):
    """A request whose Content-Type Django reads as a media type without parameters.

    Django's parser of parameters raises on some of them. It also has Python look up a charset, and Python
    keeps each name that it does not find. Where a parameter matters, `ags.api.request.body` reads it.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        content_type: str = environ.get("CONTENT_TYPE", "")
        environ["CONTENT_TYPE"] = content_type.partition(";")[0]
        try:
            super().__init__(environ)
        except Exception as error:  # noqa: BLE001 - it comes from what the caller sent
            raise ApiError(REQUEST_MALFORMED, why=type(error).__name__) from None
        environ["CONTENT_TYPE"] = content_type


class StaffHandler(WSGIHandler):
    """Django's handler, for pages of staff."""

    request_class = StaffRequest

    def respond(self, environ: dict[str, Any]) -> HttpResponseBase:
        """Return the response to a request."""
        response: HttpResponseBase = self(environ, _start_response)
        if not response.streaming:
            response.close()
        return response


def _start_response(*_: Any) -> Any:
    """Do nothing: the response is returned."""


def is_staff_page(path: str) -> bool:
    """Return whether a page for people is at that path."""
    return path.startswith(middleware.STAFF_PATHS)


def threads() -> int:
    """Return how many threads a process has for strategies that block."""
    asks = any(issubclass(strategy.Settings, UpstreamSettings) for strategy in strategies().values())
    return VERIFICATION_THREADS + MAX_CONCURRENT_CALLS if asks else VERIFICATION_THREADS


class Application:
    """AGS on an ASGI server. The event loop answers the API; Django answers pages of staff, in threads."""

    def __init__(self) -> None:
        self.staff_handler = StaffHandler()

    @staticmethod
    def body_limit(path: str) -> int:
        """Return how many bytes of a body are read, for a server that gathers them."""
        return settings.DATA_UPLOAD_MAX_MEMORY_SIZE if is_admin_path(path) else body.MAX_BYTES

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Speak ASGI 3.0, of which `lifespan` and `http`."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._send(await self._respond(scope, receive), send)
        else:
            raise ValueError(f"{scope['type']} is not served")

    async def start(self) -> None:
        """Open what the running event loop needs: threads, and connections to the database."""
        bound_all_statements()
        migrations_state.required_migrations()  # reads files, which a request should not wait for
        open_threads(threads())
        open_database()

    async def stop(self) -> None:
        """Close what `start` has opened."""
        await close_database()
        close_threads()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await self.start()
            await send({"type": "lifespan.startup.complete"})
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Message, receive: Receive) -> HttpResponseBase:
        meta = _meta(scope)
        try:
            extensions = scope.get("extensions") or {}
            if "ags.refusal" in extensions:  # the server says why it reads no further
                raise ApiError(bare(extensions["ags.refusal"]["status"]))
            _refuse_ambiguous(scope)
            if "ags.buffered" in extensions:  # the server has read the whole body, within its limits
                body: bytes = (await receive())["body"]
            else:
                body = await _read_body(meta, receive)
        except Exception as error:  # noqa: BLE001 - each exception has a response
            return _closing(middleware.refuse(meta, error), scope)
        if "CONTENT_LENGTH" not in meta:  # the body came in chunks, or over HTTP/2
            meta["CONTENT_LENGTH"] = str(len(body))
        response: HttpResponseBase
        try:
            if is_staff_page(meta["PATH_INFO"]):
                response = await run_in_thread(self.staff_handler.respond, _environ(meta, body), pool=STAFF)
            else:
                response = await middleware.answer(GatewayRequest(meta, body))
        except Exception as error:  # noqa: BLE001 - what is raised outside the middleware is answered too
            response = middleware.refuse(meta, error)
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _closing(response, scope)
        return response

    async def _send(self, response: Any, send: Send) -> None:
        cookies = [("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values()]
        headers = [(_lower(name), value.encode("latin-1")) for name, value in [*response.items(), *cookies]]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if response.streaming:
            await self._send_blocks(response, send)
        else:
            await send({"type": "http.response.body", "body": response.content})

    async def _send_blocks(self, response: Any, send: Send) -> None:
        """Send a file, of which a block is read when the client has taken the last one."""
        blocks = iter(response)
        try:
            while (block := await run_in_thread(next, blocks, None, pool=STAFF)) is not None:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            response.close()


def _closing(response: HttpResponseBase, scope: Message) -> HttpResponseBase:
    """End the connection after this response: of its request, something may not have been read."""
    if scope["http_version"].startswith("1"):  # later versions have no such header
        response.headers["Connection"] = "close"
    return response


def _meta(scope: Message) -> dict[str, Any]:
    """Return `HttpRequest.META` (RFC 3875), with what AGS adds to it."""
    server, client = scope.get("server") or ("", None), scope.get("client") or ("", None)
    raw_path = scope.get("raw_path")
    path: bytes = unquote_to_bytes(raw_path) if raw_path else scope["path"].encode()
    meta = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": path.decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or ""),
        "REMOTE_ADDR": client[0],
        "wsgi.url_scheme": scope["scheme"],
        # By the socket, and not by what the request says of it: one in the file system has no port.
        "ags.operations": server[1] is not None and settings.AGS_OPERATIONS_BIND.endswith(f":{server[1]}"),
        "ags.stopping": "ags.stopping" in (scope.get("extensions") or {}),
    }
    for name, value in scope["headers"]:
        if b"_" in name:  # no variable tells it from one with a hyphen
            continue
        variable, text = _variable(name), value.decode("latin-1")
        if variable in meta:
            text = f"{meta[variable]}{'; ' if name == b'cookie' else ','}{text}"
        meta[variable] = text
    return meta


def _environ(meta: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Return the environ of PEP 3333."""
    return {
        **meta,
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }


@lru_cache(maxsize=256)
def _variable(name: bytes) -> str:
    """Return the name of a header's variable in CGI (RFC 3875, section 4.1.18)."""
    variable = name.decode("latin-1").upper().replace("-", "_")
    return variable if variable in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{variable}"


@lru_cache(maxsize=256)
def _lower(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _refuse_ambiguous(scope: Message) -> None:
    """Refuse a request that does not say once where it goes and what it holds. Raises ApiError (400)."""
    given = [header for header in scope["headers"] if header[0] in SINGLE]
    single = dict(given)
    if len(given) != len(single) or (not single.get(b"host") and scope["http_version"] == "1.1"):
        raise ApiError(REQUEST_MALFORMED)


async def _read_body(meta: dict[str, Any], receive: Receive) -> bytes:
    """Return the body, or the beginning of one that is too large. Raises ApiError (400)."""
    limit = Application.body_limit(meta["PATH_INFO"])
    if body.content_length(meta) > limit:
        return b""
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(BODY_LIMIT):
            while more and size <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(REQUEST_MALFORMED, why="body_unreadable")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
    except TimeoutError:
        raise ApiError(REQUEST_MALFORMED, why="body_unreadable") from None
    return b"".join(parts)
