"""Request smuggling: data for which HTTP parsers disagree about the end of a request.

Each attack consists of an outer request, a hidden request, and a last one that closes the connection. A
lenient parser executes the hidden request although it is part of a body or a header. `Attack.reading` is the
interpretation of RFC 9112.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.support.server import Response, ServerProcess, exchange_bytes, is_uuid

pytestmark = pytest.mark.once

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


class Attack(NamedTuple):
    name: str
    sent: bytes
    reading: Reading


def get(correlation_id: str, *lines: bytes) -> bytes:
    head = [
        b"GET /healthz HTTP/1.1",
        b"Host: localhost",
        f"x-correlation-id: {correlation_id}".encode(),
        *lines,
    ]
    return b"\r\n".join([*head, b"", b""])


SMUGGLED = get(HIDDEN)
GOODBYE = get(LAST, b"Connection: close")
GET = b"GET /healthz HTTP/1.1"
POST = b"POST /ags/getSessionToken HTTP/1.1"
CHUNKED = b"Transfer-Encoding: chunked"
# The tenant does not exist: the body is parsed, then the response is an error.
FIELDS = [
    b"Host: localhost",
    b"x-correlation-id: outer",
    b"nv-tenant-id: nobody",
    b"x-auth-service-id: Login",
    b"Content-Type: application/json",
]
SIZE = b"%x\r\n" % len(SMUGGLED)
IN_CHUNK = SIZE + SMUGGLED + b"\r\n0\r\n\r\n"
BEHIND_CHUNKS = b"0\r\n\r\n" + SMUGGLED


def outer(start: bytes, *lines: bytes, fields: Iterable[bytes] = FIELDS) -> bytes:
    return b"\r\n".join([start, *fields, *lines, b"", b""])


def length(of: bytes) -> bytes:
    return b"Content-Length: %d" % len(of)


# `<n>`: the length of the hidden request. BODY if the field is valid, REQUEST if it is another field.
LENGTHS: dict[bytes, Reading] = {
    b"Content-Length: <n>": BODY,
    b"content-length:<n>": BODY,
    b"CONTENT-LENGTH: \t <n> \t": BODY,
    b"Content-Length: 000<n>": BODY,
    b"Content-Length: <n>\r\nContent-Length: <n>": BODY,
    b"Content-Length: <n>, <n>": BODY,
    b"Content-Length: <n>,": BODY,
    b"Content-Length: ,<n>": BODY,
    b"Content-Length:\r\n <n>": BODY,
    b"Content-Length: <n>\r\n ": BODY,
    b"Content-Length: <n>\0": BODY,
    b"Content-Length: <n>\r\nContent_Length: 0": BODY,
    b"Content-Length: 0": REQUEST,
    b"Content-Length: -0": INVALID,
    b"Content-Length: +<n>": INVALID,
    b"Content-Length: -<n>": INVALID,
    b"Content-Length: 0x<n>": INVALID,
    b"Content-Length: <n>.0": INVALID,
    b"Content-Length: <n>e0": INVALID,
    b"Content-Length: 0_<n>": INVALID,
    b'Content-Length: "<n>"': INVALID,
    b"Content-Length: <n>;": INVALID,
    b"Content-Length: <n> <n>": INVALID,
    b"Content-Length: 0, <n>": INVALID,
    b"Content-Length: <n>, 0": INVALID,
    b"Content-Length: 0\r\nContent-Length: <n>": INVALID,
    b"Content-Length: <n>\r\ncontent-length: 0": INVALID,
    b"Content-Length: 0\r\n <n>": INVALID,
    b"Content-Length: <n>\r0": INVALID,
    b"Content-Length: 0\0<n>": INVALID,
    b"Content-Length: <n>\x0b": INVALID,
    b"Content-Length: \x0c<n>": INVALID,
    b"Content-Length: <n>\x85": INVALID,
    b"Content-Length: \xa0<n>": INVALID,
    b"Content-Length: \xb2": INVALID,
    b"Content-Length: \xd9\xa1": INVALID,
    b"Content-Length: abc": INVALID,
    b"Content-Length:": INVALID,
    b"Content-Length: %d" % (2**32 + len(SMUGGLED)): INVALID,
    b"Content-Length: %d" % (2**63 + len(SMUGGLED)): INVALID,
    b"Content-Length: %d" % (2**64 + len(SMUGGLED)): INVALID,
    b"Content-Length : <n>": INVALID,
    b"Content-Length\t: <n>": INVALID,
    b"Content-Length\x0b: <n>": INVALID,
    b"Content-Length\xa0: <n>": INVALID,
    b"Content-Length\0: <n>": INVALID,
    b"\x0cContent-Length: <n>": INVALID,
    b"Content Length: <n>": INVALID,
    b"(Content-Length): <n>": INVALID,
    b":Content-Length: <n>": INVALID,
    b"Content-Length\r\n: <n>": INVALID,
    b"Content-Length <n>": INVALID,
    # A bare line feed may end a line or not: the request must be rejected.
    b"X: y\nContent-Length: <n>": INVALID,
    b"X: y\rContent-Length: <n>": REQUEST,
    b"X: y\r\n Content-Length: <n>": REQUEST,
    b"X: y\r\n\tContent-Length: <n>": REQUEST,
    b"X: y\0Content-Length: <n>": REQUEST,
    b"Content_Length: <n>": REQUEST,
    b"X-Content-Length: <n>": REQUEST,
    b"Content--Length: <n>": REQUEST,
}

# BODY if the coding is valid, REQUEST if it is another field.
CODINGS: dict[bytes, Reading] = {
    b"Transfer-Encoding: chunked": BODY,
    b"transfer-encoding:CHUNKED": BODY,
    b"TRANSFER-ENCODING: \t Chunked \t": BODY,
    b"Transfer-Encoding: chunked,": BODY,
    b"Transfer-Encoding: , chunked": BODY,
    b"Transfer-Encoding: gzip, chunked": BODY,
    b"Transfer-Encoding: identity, chunked": BODY,
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked": BODY,
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked": BODY,
    b"Transfer-Encoding:\r\n chunked": BODY,
    b"Transfer-Encoding:\r\n\tchunked": BODY,
    b"Transfer-Encoding: gzip\r\n , chunked": BODY,
    b"Transfer-Encoding: chunked\0": BODY,
    b"Transfer-Encoding: chunked, chunked": INVALID,
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked": INVALID,
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity": INVALID,
    b"Transfer-Encoding: chunked, gzip": INVALID,
    b"Transfer-Encoding: chunked\r\n , identity": INVALID,
    b"Transfer-Encoding: identity": INVALID,
    b"Transfer-Encoding:": INVALID,
    b"Transfer-Encoding: xchunked": INVALID,
    b"Transfer-Encoding: chunkedx": INVALID,
    b"Transfer-Encoding: x chunked": INVALID,
    b"Transfer-Encoding: chunked;q=1": INVALID,
    b'Transfer-Encoding: "chunked"': INVALID,
    b"Transfer-Encoding: chun\r\n ked": INVALID,
    b"Transfer-Encoding: chunked\rX: y": INVALID,
    b"Transfer-Encoding: chun\0ked": INVALID,
    b"Transfer-Encoding: chunked\x0b": INVALID,
    b"Transfer-Encoding: \x0cchunked": INVALID,
    b"Transfer-Encoding: chunked\x85": INVALID,
    b"Transfer-Encoding: \xa0chunked": INVALID,
    b"Transfer-Encoding : chunked": INVALID,
    b"Transfer-Encoding\t: chunked": INVALID,
    b"Transfer-Encoding\x0b: chunked": INVALID,
    b"Transfer-Encoding\0: chunked": INVALID,
    b"\xa0Transfer-Encoding: chunked": INVALID,
    b"Transfer Encoding: chunked": INVALID,
    b"Transfer-Encoding\r\n: chunked": INVALID,
    b"X: y\nTransfer-Encoding: chunked": INVALID,
    b"X: y\rTransfer-Encoding: chunked": REQUEST,
    b"X: y\r\n Transfer-Encoding: chunked": REQUEST,
    b"X: y\0Transfer-Encoding: chunked": REQUEST,
    b"Transfer_Encoding: chunked": REQUEST,
    b"X-Transfer-Encoding: chunked": REQUEST,
    b"TE: chunked": REQUEST,
}

# The body after `Transfer-Encoding: chunked`; `<hidden>`: the hidden request, `<size>`: its length.
CHUNKS: dict[bytes, Reading] = {
    b"<size>\r\n<hidden>\r\n0\r\n\r\n": BODY,
    b"0000<size>\r\n<hidden>\r\n00\r\n\r\n": BODY,
    b"<size>;a=b\r\n<hidden>\r\n0\r\n\r\n": BODY,
    b'<size>;a="b;c"\r\n<hidden>\r\n0;d\r\n\r\n': BODY,
    b"<size> ; a = b\r\n<hidden>\r\n0\r\n\r\n": BODY,
    b"1\r\n{\r\n1\r\n}\r\n<size>\r\n<hidden>\r\n0\r\n\r\n": BODY,
    b"0\r\nx-correlation-id: smuggled\r\n\r\n": BODY,
    b"000\r\n\r\n<hidden>": REQUEST,
    b"0;a\r\n\r\n<hidden>": REQUEST,
    b"A\r\n0123456789\r\n0\r\n\r\n<hidden>": REQUEST,
    b"a\r\n0123456789\r\n0\r\nX: y\r\n\r\n<hidden>": REQUEST,
    b"0\r\nContent-Length: <n>\r\n\r\n<hidden>": REQUEST,
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n<hidden>": REQUEST,
    b"0\r\nHost: elsewhere\r\n\r\n<hidden>": REQUEST,
    b"0\r\nX: y\r\n <hidden>": INVALID,
    b"0\r\n<hidden>": INVALID,
    b"0\r\nX : y\r\n\r\n<hidden>": INVALID,
    b"0\r\nX: y\n\r\n<hidden>": INVALID,
    b"0\r\n X: y\r\n\r\n<hidden>": INVALID,
    b"0\r\n: y\r\n\r\n<hidden>": INVALID,
    b" 0\r\n\r\n<hidden>": INVALID,
    b"0 \r\n\r\n<hidden>": INVALID,
    b"0\t\r\n\r\n<hidden>": INVALID,
    b"+0\r\n\r\n<hidden>": INVALID,
    b"-0\r\n\r\n<hidden>": INVALID,
    b"0x0\r\n\r\n<hidden>": INVALID,
    b"0_0\r\n\r\n<hidden>": INVALID,
    b"0.0\r\n\r\n<hidden>": INVALID,
    b"0,\r\n\r\n<hidden>": INVALID,
    b"\xb2\r\n\r\n<hidden>": INVALID,
    b"\r\n0\r\n\r\n<hidden>": INVALID,
    b"0\0\r\n\r\n<hidden>": INVALID,
    b"0\x0b\r\n\r\n<hidden>": INVALID,
    b"0\n\r\n<hidden>": INVALID,
    b"0\n\n<hidden>": INVALID,
    b"0\r\r\n\r\n<hidden>": INVALID,
    b"0\r\n\n<hidden>": INVALID,
    b"0\r\n\r<hidden>": INVALID,
    b"0\rX\r\n\r\n<hidden>": INVALID,
    b"100000000\r\n\r\n<hidden>": INVALID,
    b"8000000000000000\r\n\r\n<hidden>": INVALID,
    b"10000000000000000\r\n\r\n<hidden>": INVALID,
    b"ffffffffffffffff\r\n\r\n<hidden>": INVALID,
    b"1" * 400 + b"\r\n\r\n<hidden>": INVALID,
    b"2;\nxx\r\n<size>\r\n0\r\n\r\n<hidden>": INVALID,
    b"0;a\n\r\n\r\n<hidden>": INVALID,
    b"0;a\rb\r\n\r\n<hidden>": INVALID,
    b"0;a\0b\r\n\r\n<hidden>": INVALID,
    b"2\r\n{}0\r\n\r\n<hidden>": INVALID,
    b"2\r\n{}\n0\r\n\r\n<hidden>": INVALID,
    b"2\r\n{}\r0\r\n\r\n<hidden>": INVALID,
    b"2\r\n{}xx0\r\n\r\n<hidden>": INVALID,
    b"2\r\n{}\r\n\r\n0\r\n\r\n<hidden>": INVALID,
    b"1\r\n{}\r\n0\r\n\r\n<hidden>": INVALID,
    b"<size>\r\n<hidden>\r\n": INVALID,
}

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


def attacks() -> Iterator[Attack]:
    """Yield all attacks. If RFC 9112 allows several interpretations, `reading` is the more lenient one."""
    n, size = b"%d" % len(SMUGGLED), b"%x" % len(SMUGGLED)
    for line, reading in LENGTHS.items():
        sent = outer(POST, line.replace(b"<n>", n)) + SMUGGLED
        yield Attack(f"length {line!r}", sent, reading)
    for line, reading in CODINGS.items():
        yield from coding_attacks(line, reading)
    for chunks, reading in CHUNKS.items():
        body = chunks.replace(b"<n>", n).replace(b"<size>", size).replace(b"<hidden>", SMUGGLED)
        yield Attack(f"chunks {chunks[:80]!r}", outer(POST, CHUNKED) + body, reading)
    for start, reading in STARTS.items():
        yield Attack(f"start {start!r}", outer(start) + SMUGGLED, reading)
    for line, reading in LINES.items():
        yield Attack(f"line {line!r}", outer(GET, line) + SMUGGLED, reading)
    for line, reading in BESIDE_LENGTH.items():
        yield Attack(f"beside a length {line!r}", outer(POST, line, length(SMUGGLED)) + SMUGGLED, reading)
    yield from method_attacks()
    yield from version_attacks()
    yield from host_attacks()
    yield from wrong_length_attacks()


def coding_attacks(line: bytes, reading: Reading) -> Iterator[Attack]:
    """Yield the coding without and with Content-Length, which includes the hidden request or not."""
    counts = reading == BODY
    ignored = reading == REQUEST
    # If both are valid, the length is ignored, and the connection must be closed (RFC 9112, section 6.1).
    both = END if counts else reading
    name = f"coding {line!r}"
    alone = REQUEST if counts else (OUTER, ERROR) if ignored else reading
    yield Attack(name, outer(POST, line) + BEHIND_CHUNKS, alone)
    sent = outer(POST, length(BEHIND_CHUNKS), line) + BEHIND_CHUNKS
    yield Attack(f"{name} after the length of all", sent, BODY if ignored else both)
    sent = outer(POST, line, length(SIZE)) + IN_CHUNK
    after_size = (OUTER, HIDDEN, ERROR)
    yield Attack(f"{name} before the length of a size", sent, after_size if ignored else both)


def method_attacks() -> Iterator[Attack]:
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"PUT", b"PATCH", b"TRACE", b"FOO"):
        start = method + b" /healthz HTTP/1.1"
        yield Attack(f"{start!r} with a body", outer(start, length(SMUGGLED)) + SMUGGLED, BODY)
        yield Attack(f"{start!r} with chunks", outer(start, CHUNKED) + IN_CHUNK, BODY)
    start = b"CONNECT localhost:443 HTTP/1.1"
    yield Attack("CONNECT with a body", outer(start, length(SMUGGLED)) + SMUGGLED, BODY)
    yield Attack("CONNECT", outer(start) + SMUGGLED, REQUEST)


def version_attacks() -> Iterator[Attack]:
    keep = b"Connection: keep-alive"
    start = POST.replace(b"1.1", b"1.0")
    yield Attack("HTTP/1.0", outer(start, length(SMUGGLED)) + SMUGGLED, END)
    yield Attack("HTTP/1.0, kept", outer(start, keep, length(SMUGGLED)) + SMUGGLED, BODY)
    yield Attack("HTTP/1.0, kept, no length", outer(start, keep) + SMUGGLED, REQUEST)
    # A coding makes the framing of HTTP/1.0 faulty, and the connection must end (RFC 9112, section 6.1).
    for lines in ([CHUNKED], [keep, CHUNKED], [keep, length(BEHIND_CHUNKS), CHUNKED]):
        yield Attack(f"HTTP/1.0 {lines!r}", outer(start, *lines) + BEHIND_CHUNKS, END)


def host_attacks() -> Iterator[Attack]:
    """Host is required; its value does not affect framing."""
    fields = FIELDS[1:]
    for line in (b"X: y", b"Host:", b"Host: elsewhere", b"Host: a, b", b"Host: localhost/x", b"Host: a@b"):
        sent = outer(GET, line, length(SMUGGLED), fields=fields) + SMUGGLED
        yield Attack(f"host {line!r}", sent, INVALID if line in {b"X: y", b"Host:"} else BODY)


def wrong_length_attacks() -> Iterator[Attack]:
    for size_, body, reading in (
        (1, b"X" + SMUGGLED, REQUEST),
        (len(SMUGGLED) - 2, SMUGGLED, BODY),  # an empty line before a request is ignored
        (len(SMUGGLED) - 5, SMUGGLED, (OUTER, ERROR)),
        (len(SMUGGLED) + 2, SMUGGLED, BODY),  # T is a valid method
        (len(SMUGGLED + GOODBYE) + 1, SMUGGLED, INVALID),
    ):
        sent = outer(POST, b"Content-Length: %d" % size_) + body
        yield Attack(f"length {size_} of {len(body)}", sent, reading)


ATTACKS = [Attack(name, sent + GOODBYE, reading) for name, sent, reading in attacks()]

VALID_REQUESTS = [
    "length b'Content-Length: <n>'",
    "length b'content-length:<n>'",
    "length b'CONTENT-LENGTH: \\t <n> \\t'",
    "coding b'Transfer-Encoding: chunked'",
    "coding b'transfer-encoding:CHUNKED'",
    "chunks b'<size>\\r\\n<hidden>\\r\\n0\\r\\n\\r\\n'",
    "chunks b'<size>;a=b\\r\\n<hidden>\\r\\n0\\r\\n\\r\\n'",
    "chunks b'000\\r\\n\\r\\n<hidden>'",
    "start b'GET /healthz HTTP/1.1'",
    "start b'\\r\\nGET /healthz HTTP/1.1'",
    "line b'Connection: close'",
    # Clients send these by default and continue with HTTP/1.1.
    "line b'Connection: Upgrade\\r\\nUpgrade: websocket'",
    "line b'Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: h2c\\r\\nHTTP2-Settings: AAMAAABkAAQAAP__'",
    "beside a length b'Expect: 100-continue'",
    "b'HEAD /healthz HTTP/1.1' with a body",
    "b'DELETE /healthz HTTP/1.1' with a body",
]
"""Valid requests, which must not be rejected."""

PARSER_REASONS = {
    "request_malformed",
    "body_too_large",
    "uri_too_long",
    "headers_too_large",
    "expectation_failed",
    "not_implemented",
}
"""Reasons of the HTTP parser; errors of the API mean that the request was parsed."""


def is_parser_error(response: Response) -> bool:
    """Return True for an error of the HTTP parser in the documented format."""
    if response.headers["Content-Type"] != "application/json" or response.status_code < 400:
        return False
    body = response.json()
    return (
        set(body) == {"code", "reason", "message", "correlationId"}
        and body["reason"] in PARSER_REASONS
        and body["correlationId"] == response.headers["x-correlation-id"]
    )


def find_error(attack: Attack, responses: list[Response]) -> str | None:
    """Return an error message if the responses are wrong, otherwise None.

    The responses must be a prefix of the reading, or all of it; the last may be an error instead.
    """
    ids = [response.headers["x-correlation-id"] for response in responses]
    closes = [response.headers["Connection"] == "close" for response in responses]
    if any(response.status_code == 500 for response in responses):
        return "status 500"
    if not responses or closes != [False] * (len(responses) - 1) + [True]:
        return "only the last response must close the connection"
    if len(responses) > len(attack.reading) or tuple(ids[:-1]) != attack.reading[: len(ids) - 1]:
        return "other requests were parsed"
    # The correlation ID is known if the head is valid but the body is not.
    expected = OUTER if len(responses) == 1 else attack.reading[len(responses) - 1]
    is_error = is_parser_error(responses[-1]) and (ids[-1] == expected or is_uuid(ids[-1]))
    if not is_error and ids[-1] != attack.reading[len(responses) - 1]:
        return "another last request was parsed"
    if attack.name in VALID_REQUESTS and tuple(ids) != attack.reading:
        return "a valid request is rejected"
    return None


def send_attack(server: ServerProcess, attack: Attack, piece: int | None) -> list[Response] | None:
    """Return the final responses. None if sending in pieces was too slow to receive them."""
    # Signal the end of the data if the request is incomplete.
    incomplete = attack.reading[-1] == ERROR
    heads = int(attack.sent.startswith(b"HEAD "))
    try:
        responses = exchange_bytes(server.port, attack.sent, half_close=incomplete, heads=heads, piece=piece)
    except OSError as error:
        if piece is None or isinstance(error, TimeoutError):
            raise
        return None
    return [response for response in responses if response.status_code >= 200]  # without 100 Continue


@pytest.mark.parametrize("piece", [None, 11])
def test_no_request_is_smuggled(server: ServerProcess, piece: int | None) -> None:
    assert {attack.name for attack in ATTACKS} > set(VALID_REQUESTS)
    assert len({attack.sent for attack in ATTACKS}) == len(ATTACKS)
    logged = len(server.log)
    with ThreadPoolExecutor(4) as pool:
        received = list(pool.map(lambda attack: send_attack(server, attack, piece), ATTACKS))
    wrong = [
        f"{attack.name}: {message}: {attack.reading} expected, not "
        + ", ".join(f"{r.status_code} {r.headers['x-correlation-id']}" for r in responses)
        for attack, responses in zip(ATTACKS, received, strict=True)
        if responses is not None and (message := find_error(attack, responses))
    ]
    assert not wrong, "\n".join(wrong)
    assert '"ERROR"' not in server.log[logged:], server.log


def test_trailers_are_ignored(server: ServerProcess) -> None:
    fields = [b"Host: localhost", b"Content-Type: application/json"]
    trailer = b"nv-tenant-id: nobody\r\nx-auth-service-id: Login\r\nx-correlation-id: smuggled\r\n"
    sent = outer(POST, CHUNKED, b"Connection: close", fields=fields) + b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n"
    (response,) = exchange_bytes(server.port, sent)
    assert (response.status_code, response.json()["reason"]) == (400, "header_missing")
    assert is_uuid(response.headers["x-correlation-id"])
