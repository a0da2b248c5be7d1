"""A request and its response: what HTTP/1.1 (RFC 9112) demands of a head, and ASGI."""

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

HEADERS_LIMIT = 100

HEAD_LIMIT = 64 * 1024
"""Bytes of all headers, and of what the parser may take without coming further."""

ASGI = {"version": "3.0", "spec_version": "2.5"}
FRAMING = {b"content-length", b"transfer-encoding"}
SINGLE = FRAMING | {b"expect"}
NO_BODY = {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
STATUS_LINES = {status: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Refused(Exception):
    """Raised in what the parser calls, to stop it: the HTTPStatus of a request that is not read further."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request and its response: `scope`, `receive` and `send` of ASGI.

    As long as the head is not whole, `method` is empty and `target` is as it was sent; then it is path and
    query, empty where there is no path. `refusal` is the status of what is not read further.
    """

    connection: Connection
    method: str = ""
    version: str = "1.1"
    target: bytes = b""
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    head_size: int = 0
    refusal: int | None = None
    body: bytes | bytearray = field(default_factory=bytearray)
    body_limit: int = 0
    keep_alive: bool = False
    expects_continue: bool = False
    response_head: bytes | None = None

    # What arrives

    def add_target(self, part: bytes) -> None:
        """Add to the request target. Raises Refused, as the next three do."""
        self.target += part
        if len(self.target) > TARGET_LIMIT:
            raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG)

    def add_header(self, name: bytes, value: bytes) -> None:
        """Add a header."""
        size = len(name) + len(value)
        self.head_size += size
        if size > HEADER_LIMIT or self.head_size > HEAD_LIMIT or len(self.headers) == HEADERS_LIMIT:
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self.headers.append((name.lower(), value.rstrip(b" \t")))

    def end_head(self, parser: Any) -> None:
        """Decide how the body is read."""
        self.method, self.version = parser.get_method().decode(), parser.get_http_version()
        self.target = _in_origin_form(self.target)
        self.keep_alive = parser.should_keep_alive()
        self.body_limit = self.connection.worker.application.body_limit(self.path)
        headers = dict(self.headers)
        _refuse_unclear(self, headers)
        if int(headers.get(b"content-length", b"0")) > self.body_limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        self.expects_continue = b"expect" in headers and self.version == "1.1"

    def add_body(self, part: bytes) -> None:
        """Add to the body, which counts for what the process buffers."""
        self.body += part
        self.connection.worker.buffered += len(part)
        if len(self.body) > self.body_limit:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)

    def framing(self) -> bytes:
        """Return the headers that say where the body ends."""
        return b"".join(b"%b: %b\r\n" % header for header in self.headers if header[0] in FRAMING)

    def release(self) -> None:
        """Buffer the body no longer."""
        self.connection.worker.buffered -= len(self.body)
        self.body = b""

    # What the application sees

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote_to_bytes(self.target.partition(b"?")[0]).decode(errors="replace")

    def scope(self) -> dict[str, Any]:
        """Return the connection scope of ASGI."""
        raw_path, _, query = self.target.partition(b"?")
        extensions = self.connection.worker.extensions()
        if self.refusal is not None:
            extensions["ags.refusal"] = {"status": self.refusal}
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
        """Return the whole body."""
        self.body = bytes(self.body)
        return {"type": "http.request", "body": self.body, "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Send a part of the response. Returns when the client has taken it; raises ConnectionError."""
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
        """Return the head. A body whose length is not given ends with the connection."""
        status, headers = response["status"], dict(response["headers"])
        self.keep_alive = (
            self.keep_alive
            and not self.connection.worker.is_stopping
            and (b"content-length" in headers or status in NO_BODY)
            and headers.get(b"connection") != b"close"
        )
        lines = [b"%b: %b\r\n" % header for header in response["headers"] if header[0] != b"connection"]
        connection = b"connection: keep-alive\r\n" if self.keep_alive else b"connection: close\r\n"
        return b"".join([STATUS_LINES[status], self.connection.worker.date, connection, *lines, b"\r\n"])


def _refuse_unclear(exchange: Exchange, headers: dict[bytes, bytes]) -> None:
    """Raise Refused for a head that leaves open what is requested, or where the request ends."""
    single = [name for name, _ in exchange.headers if name in SINGLE]
    coding = headers.get(b"transfer-encoding")
    if (
        len(single) != len(set(single))
        or exchange.version not in {"1.0", "1.1"}
        or (exchange.version == "1.0" and coding is not None)
        or exchange.method == "CONNECT"
        or not exchange.target
        or (exchange.target == b"*" and exchange.method != "OPTIONS")
    ):
        raise Refused(HTTPStatus.BAD_REQUEST)
    if coding is not None and coding.lower() != b"chunked":
        raise Refused(HTTPStatus.NOT_IMPLEMENTED)
    if exchange.version == "1.1" and headers.get(b"expect", b"100-continue").lower() != b"100-continue":
        raise Refused(HTTPStatus.EXPECTATION_FAILED)


def _in_origin_form(target: bytes) -> bytes:
    """Return path and query of a request target (RFC 9112, section 3.2), nothing where it has none."""
    if target.startswith(b"/") or target == b"*":
        return target.partition(b"#")[0]
    try:
        url = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        return b""
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
