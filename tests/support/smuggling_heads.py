"""First lines and header lines that servers read differently."""

from __future__ import annotations

OUTER, HIDDEN, LAST = "outer", "smuggled", "last"
"""Correlation IDs of the three requests."""

ERROR = "error"
"""In place of a correlation ID: an error with a new correlation ID, for data that is not a request."""

Reading = tuple[str, ...]

REQUEST: Reading = (OUTER, HIDDEN, LAST)
"""The hidden request is a separate request."""

BODY: Reading = (OUTER, LAST)
"""The hidden request is part of the outer request."""

END: Reading = (OUTER,)
"""The connection is closed after the outer request."""

INVALID: Reading = (ERROR,)
"""The outer request is invalid, incomplete, or its end is ambiguous."""
GET = b"GET /healthz HTTP/1.1"

# The first line. The hidden request follows the head.
STARTS: dict[bytes, Reading] = {
    GET: REQUEST,
    b"\r\n" + GET: REQUEST,
    b"\r\n\r\n\r\n" + GET: REQUEST,
    b"\n" + GET: REQUEST,
    b" " + GET: REQUEST,
    GET + b" ": REQUEST,
    GET + b"\n": INVALID,
    GET + b"\nX: y": REQUEST,
    GET + b"\rX: y": INVALID,
    GET + b"\r\n X: y": REQUEST,
    GET + b"\0": INVALID,
    b"GET  /healthz  HTTP/1.1": REQUEST,
    b"GET\t/healthz\tHTTP/1.1": REQUEST,
    b"GET\x0b/healthz\x0cHTTP/1.1": REQUEST,
    b"GET http://elsewhere.example/healthz HTTP/1.1": REQUEST,
    b"GET http://localhost/healthz HTTP/1.1": REQUEST,
    b"GET //elsewhere.example/healthz HTTP/1.1": REQUEST,
    b"GET healthz HTTP/1.1": REQUEST,
    b"OPTIONS * HTTP/1.1": REQUEST,
    b"FOO /healthz HTTP/1.1": REQUEST,
    b"GET /healthz HTTP/1.2": REQUEST,
    b"GET /healthz HTTP/1.0": END,
    b"GET /healthz HTTP/0.9": INVALID,
    b"GET /healthz HTTP/1.10": INVALID,
    b"GET /healthz HTTP/01.1": INVALID,
    b"GET /healthz HTTP/1": INVALID,
    b"GET /healthz http/1.1": INVALID,
    b"GET /healthz HTTP/2.0": INVALID,
    b"GET /healthz": INVALID,
    b"GET /healthz HTTP/1.1 HTTP/1.1": INVALID,
    b"GET /\0 HTTP/1.1": INVALID,
    b"G(T /healthz HTTP/1.1": INVALID,
    b"HTTP/1.1 200 OK": INVALID,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n": INVALID,
}

# A line in the head of a request without a body. The hidden request follows the head.
LINES: dict[bytes, Reading] = {
    b"Connection: close": END,
    b"connection:CLOSE": END,
    b"Connection: close, keep-alive": END,
    b"Connection: keep-alive, close": END,
    b"Connection: keep-alive\r\nConnection: close": END,
    b"Connection: keep-alive": REQUEST,
    b"Proxy-Connection: close": REQUEST,
    b"Connection : close": INVALID,
    b"Connection: Upgrade\r\nUpgrade: websocket": REQUEST,
    b"Connection: Upgrade\r\nUpgrade: TLS/1.2": REQUEST,
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__": REQUEST,
    b"Expect: 100-continue": REQUEST,
    b"Expect : 100-continue": INVALID,
    b"Host: localhost": INVALID,
    b"Host: elsewhere.example": INVALID,
    b"X: y\r\n\0": INVALID,
    b": y": INVALID,
    b":": INVALID,
    b"X": INVALID,
    b"X\x7f: y": INVALID,
    b"X\xc2\xad: y": INVALID,
    b"X@: y": INVALID,
    b"X: y\x01z": REQUEST,
    b"X: \xff": REQUEST,
    b"X!#$%&'*+.^_`|~: y": REQUEST,
    b"x_correlation_id: smuggled": REQUEST,
    b"X: y\r\n x-correlation-id: smuggled": REQUEST,
    b"X: y\0x-correlation-id: smuggled": REQUEST,
}

# A header line in addition to the correct Content-Length.
BESIDE_LENGTH: dict[bytes, Reading] = {
    b"Connection: Content-Length": BODY,
    b"Connection: keep-alive, Content-Length": BODY,
    b"Connection: close": END,
    b"Connection: Upgrade\r\nUpgrade: websocket": BODY,
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__": BODY,
    b"Expect: 100-continue": BODY,
    b"Expect: 100-Continue": BODY,
    b"Expect: 100-continue, 100-continue": BODY,
    b"Expect:\r\n 100-continue": BODY,
    b"Trailer: Content-Length": BODY,
    b"Content-Encoding: chunked": BODY,
    b"X-HTTP-Method-Override: GET": BODY,
}
