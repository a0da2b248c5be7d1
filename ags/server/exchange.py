"""A request and its response: HTTP/1.1 heads (RFC 9112) and the ASGI interface."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import httptools

if TYPE_CHECKING:
    from ags.server.connection import Connection

TARGET_LIMIT = 4094
"""Bytes of a request target."""

HEADER_LIMIT = 8190
"""Bytes of a header, name and value."""

HEADER_COUNT_LIMIT = 100

HEAD_LIMIT = 64 * 1024
"""Bytes of all headers, and of input that the parser accepts without completing an element."""

ASGI = {"version": "3.0", "spec_version": "2.5"}
FRAMING_HEADERS = {b"content-length", b"transfer-encoding"}
UNREPEATABLE_HEADERS = FRAMING_HEADERS | {b"expect"}
BODILESS_STATUSES = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class RequestRejected(Exception):
    """Raised in callbacks of the parser to stop it. The argument is the HTTPStatus of the response."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its response, with `scope`, `receive` and `send` of ASGI.

    Until the head is complete, `method` is empty and `target` is the raw request target. After that, `target`
    is path and query, or empty if there is no path. `error_status` is the status of a rejected request.
    """

    connection: Connection
    method: str = ""
    version: str = "1.1"
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    head_size: int = 0
    error_status: int | None = None
    body: bytes | bytearray = field(default_factory=bytearray)
    body_limit: int = 0
    keep_alive: bool = False
    expects_continue: bool = False
    response_head: bytes | None = None

    # Called while the request is read

    def add_target(self, part: bytes) -> None:
        self.target += part
        if len(self.target) > TARGET_LIMIT:
            raise RequestRejected(HTTPStatus.REQUEST_URI_TOO_LONG)

    def add_header(self, name: bytes, value: bytes) -> None:
        size = len(name) + len(value)
        self.head_size += size
        if size > HEADER_LIMIT or self.head_size > HEAD_LIMIT or len(self.headers) == HEADER_COUNT_LIMIT:
            raise RequestRejected(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def end_head(self, parser: Any) -> None:
        self.method, self.version = parser.get_method().decode(), parser.get_http_version()
        self.target = _to_origin_form(self.target)
        self.keep_alive = parser.should_keep_alive()
        self.body_limit = self.connection.worker.application.body_limit(self.path)
        headers = dict(self.headers)
        _reject_ambiguous_head(self, headers)
        if int(headers.get(b"content-length", b"0")) > self.body_limit:
            raise RequestRejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.expects_continue = b"expect" in headers and self.version == "1.1"

    def add_body(self, part: bytes) -> None:
        self.body += part
        self.connection.worker.buffered += len(part)
        if len(self.body) > self.body_limit:
            raise RequestRejected(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def framing_headers(self) -> bytes:
        """Return the headers that determine the length of the body."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] in FRAMING_HEADERS)

    def release(self) -> None:
        self.connection.worker.buffered -= len(self.body)
        self.body = b""

    # Called by the application

    @property
    def path(self) -> str:
        return unquote_to_bytes(self.target.partition(b"?")[0]).decode(errors="replace")

    def scope(self) -> dict[str, Any]:
        raw_path, _, query = self.target.partition(b"?")
        extensions = self.connection.worker.extensions()
        if self.error_status is not None:
            extensions["ags.refusal"] = {"status": self.error_status}
        return {
            "type": "http",
            "asgi": ASGI,
            "http_version": self.version,
            "method": self.method,
            "scheme": "http",
            "path": self.path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "client": self.connection.client,
            "server": self.connection.server,
            "extensions": extensions,
        }

    async def receive(self) -> dict[str, Any]:
        self.body = bytes(self.body)
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part of the response; return when the client has received it. Raises ConnectionError."""
        if message["type"] == "http.response.start":
            self.response_head = self._head(message)
            return
        transport = self.connection.transport
        if transport.is_closing():
            raise ConnectionResetError
        body = b"" if self.method == "HEAD" else message.get("body", b"")
        transport.writelines([self.response_head or b"", body])
        self.response_head = b""
        await self.connection.writable.wait()

    def _head(self, response: dict[str, Any]) -> bytes:
        """A body of unknown length ends with the connection."""
        status, headers = response["status"], dict(response["headers"])
        self.keep_alive = (
            self.keep_alive
            and not self.connection.worker.is_stopping
            and (b"content-length" in headers or status in BODILESS_STATUSES)
            and headers.get(b"connection") != b"close"
        )
        lines = [b"%b: %b\r\n" % header for header in response["headers"] if header[0] != b"connection"]
        connection = b"connection: keep-alive\r\n" if self.keep_alive else b"connection: close\r\n"
        return b"".join([STATUS_LINES[status], self.connection.worker.date, connection, *lines, b"\r\n"])


def _reject_ambiguous_head(exchange: Exchange, headers: dict[bytes, bytes]) -> None:
    names = [name for name, _ in exchange.headers if name in UNREPEATABLE_HEADERS]
    coding = headers.get(b"transfer-encoding")
    if (
        len(names) != len(set(names))
        or exchange.version not in {"1.0", "1.1"}
        or (exchange.version == "1.0" and coding is not None)
        or exchange.method == "CONNECT"
        or not exchange.target
        or (exchange.target == b"*" and exchange.method != "OPTIONS")
    ):
        raise RequestRejected(HTTPStatus.BAD_REQUEST)
    if coding is not None and coding.lower() != b"chunked":
        raise RequestRejected(HTTPStatus.NOT_IMPLEMENTED)
    if exchange.version == "1.1" and headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise RequestRejected(HTTPStatus.EXPECTATION_FAILED)


def _to_origin_form(target: bytes) -> bytes:
    """Return path and query of a request target (RFC 9112, section 3.2); empty if it is invalid."""
    if target.startswith(b"/") or target == b"*":
        return target.partition(b"#")[0]
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b""
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
