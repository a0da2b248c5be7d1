"""The ASGI application: the event loop serves the API, Django serves staff pages in threads."""

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
from ags.api.errors import REQUEST_MALFORMED, ApiError, error_for_status
from ags.api.request import body
from ags.api.request.gateway_request import GatewayRequest
from ags.database import close_database, open_database
from ags.database.engine.base import limit_all_statements
from ags.database.lane import Lane
from ags.database.tasks import PerEventLoop
from ags.database.threads import STAFF, close_threads, open_threads, run_in_thread
from ags.limits import close_redis, open_redis
from ags.operations import migrations_state
from ags.operations.automatic_purge import automatic_purges
from ags.operations.key_use import key_use_counters
from ags.operations.metrics import close_metrics, open_metrics
from ags.operations.processes import process_reporters
from ags.sessions.services.refusals import refusal_queues
from providers.contract import UpstreamSettings
from providers.registry import strategies
from providers.upstream.bulkhead import MAX_CONCURRENT_CALLS
from tenants.snapshot import snapshot

PERIODIC: tuple[PerEventLoop[Any], ...] = (refusal_queues, key_use_counters, process_reporters)
"""What each process does from time to time."""

VERIFICATION_THREADS = 8
"""Threads of a process for blocking strategies, not counting those that wait for an upstream."""

BODY_TIMEOUT = 10.0
"""Seconds to receive a body, on an ASGI server that does not buffer requests."""

UNREPEATABLE_HEADERS = {b"host", b"content-type", b"content-length"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class StaffRequest(WSGIRequest):
    """Hides the parameters of Content-Type from Django.

    Django's parser raises for some parameters. It also looks up the charset, and Python caches every unknown
    name permanently. `ags.api.request.body` parses the parameters where they matter.
    """

    def __init__(self, environ: dict[str, Any]) -> None:
        content_type: str = environ.get("CONTENT_TYPE", "")
        environ["CONTENT_TYPE"] = content_type.partition(";")[0]
        try:
            super().__init__(environ)
        except Exception as error:  # noqa: BLE001 - caused by the input
            raise ApiError(REQUEST_MALFORMED, log_reason=type(error).__name__) from None
        environ["CONTENT_TYPE"] = content_type


class StaffHandler(WSGIHandler):
    request_class = StaffRequest

    def handle(self, environ: dict[str, Any]) -> HttpResponseBase:
        response: HttpResponseBase = self(environ, lambda *_: lambda _: None)  # start_response
        if not response.streaming:
            response.close()
        return response


class Application:
    lane_type = Lane
    copies_context = False
    """Whether functions in threads have the context variables of the request."""

    def __init__(self) -> None:
        self.staff_handler = StaffHandler()

    @staticmethod
    def body_limit(path: str) -> int:
        """Return the limit in bytes, for a server that buffers requests."""
        return settings.DATA_UPLOAD_MAX_MEMORY_SIZE if is_admin_path(path) else body.MAX_BYTES

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._send(await self._respond(scope, receive), send)
        else:
            raise ValueError(f"unsupported scope type: {scope['type']}")

    async def start(self) -> None:
        limit_all_statements()
        migrations_state.required_migrations()  # reads files, so that no request has to
        uses_upstreams = any(issubclass(each.Settings, UpstreamSettings) for each in strategies().values())
        threads = VERIFICATION_THREADS + (MAX_CONCURRENT_CALLS if uses_upstreams else 0)
        open_threads(threads, copies_context=self.copies_context)
        open_database(self.lane_type)
        open_redis()
        for each in PERIODIC:
            each.open()
        if settings.AGS_PURGE == "on":
            automatic_purges.open()
        open_metrics()

    async def stop(self) -> None:
        await asyncio.gather(automatic_purges.close(), *(each.close() for each in PERIODIC))
        await close_metrics()
        await close_redis()
        await close_database()
        close_threads()

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "lifespan.shutdown":
            await self.start()
            await send({"type": "lifespan.startup.complete"})
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def _respond(self, scope: Message, receive: Receive) -> HttpResponseBase:
        meta = _build_meta(scope)
        try:
            extensions = scope.get("extensions") or {}
            if "ags.refusal" in extensions:  # the server rejected the request
                raise ApiError(error_for_status(extensions["ags.refusal"]["status"]))
            _reject_ambiguous_headers(scope)
            if "ags.buffered" in extensions:  # the server has read the complete body, within its limits
                body: bytes = (await receive())["body"]
            else:
                body = await _read_body(meta, receive)
        except Exception as error:  # noqa: BLE001 - each exception has a response
            return _close_connection_after(middleware.respond_outside_middleware(meta, error), scope)
        if "CONTENT_LENGTH" not in meta:  # chunked transfer coding, or HTTP/2
            meta["CONTENT_LENGTH"] = str(len(body))
        response: HttpResponseBase
        try:
            if meta["PATH_INFO"].startswith(middleware.STAFF_PATHS):
                response = await run_in_thread(
                    self.staff_handler.handle, _build_environ(meta, body), pool=STAFF
                )
            else:
                response = await middleware.handle_api_request(GatewayRequest(meta, body))
        except Exception as error:  # noqa: BLE001 - each exception has a response
            response = middleware.respond_outside_middleware(meta, error)
        if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return _close_connection_after(response, scope)
        return response

    async def _send(self, response: Any, send: Send) -> None:
        cookies = [("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values()]
        headers = [
            (b"x-ags-config", snapshot.configuration_version_text),
            *[(_encode_name(name), value.encode("latin-1")) for name, value in [*response.items(), *cookies]],
        ]
        await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        if response.streaming:
            await self._send_blocks(response, send)
        else:
            await send({"type": "http.response.body", "body": response.content})

    async def _send_blocks(self, response: Any, send: Send) -> None:
        """Each block is read after the client has received the previous one."""
        blocks = iter(response)
        try:
            while (block := await run_in_thread(next, blocks, None, pool=STAFF)) is not None:
                await send({"type": "http.response.body", "body": block, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            response.close()


def _close_connection_after(response: HttpResponseBase, scope: Message) -> HttpResponseBase:
    """The request may not have been read completely."""
    if scope["http_version"].startswith("1"):  # HTTP/2 has no Connection header
        response.headers["Connection"] = "close"
    return response


def _build_meta(scope: Message) -> dict[str, Any]:
    """Return `HttpRequest.META` (RFC 3875), with the keys `ags.operations` and `ags.stopping`."""
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
        # Decided by the listening socket, not by the request. A Unix socket has no port.
        "ags.operations": server[1] is not None and settings.AGS_OPERATIONS_BIND.endswith(f":{server[1]}"),
        "ags.stopping": "ags.stopping" in (scope.get("extensions") or {}),
    }
    for name, value in scope["headers"]:
        if b"_" in name:  # its variable would be the same as that of a name with a hyphen
            continue
        variable, text = _cgi_variable(name), value.decode("latin-1")
        if variable in meta:
            text = f"{meta[variable]}{'; ' if name == b'cookie' else ','}{text}"
        meta[variable] = text
    return meta


def _build_environ(meta: dict[str, Any], body: bytes) -> dict[str, Any]:
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
def _cgi_variable(name: bytes) -> str:
    """RFC 3875, section 4.1.18."""
    variable = name.decode("latin-1").upper().replace("-", "_")
    return variable if variable in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{variable}"


@lru_cache(maxsize=256)
def _encode_name(name: str) -> bytes:
    return name.lower().encode("latin-1")


def _reject_ambiguous_headers(scope: Message) -> None:
    headers = [header for header in scope["headers"] if header[0] in UNREPEATABLE_HEADERS]
    unique = dict(headers)
    if len(headers) != len(unique) or (not unique.get(b"host") and scope["http_version"] == "1.1"):
        raise ApiError(REQUEST_MALFORMED)


async def _read_body(meta: dict[str, Any], receive: Receive) -> bytes:
    """Return the body, cut after the limit if it is too large. Raises ApiError (400)."""
    limit = Application.body_limit(meta["PATH_INFO"])
    if body.parse_content_length(meta) > limit:
        return b""
    parts, size, more = [], 0, True
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while more and size <= limit:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ApiError(REQUEST_MALFORMED, log_reason="body_unreadable")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
    except TimeoutError:
        raise ApiError(REQUEST_MALFORMED, log_reason="body_unreadable") from None
    return b"".join(parts)
