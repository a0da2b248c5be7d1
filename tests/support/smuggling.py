"""Requests that hide another request from one of two servers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.support.smuggling_heads import (
    BESIDE_LENGTH,
    BODY,
    END,
    ERROR,
    GET,
    HIDDEN,
    INVALID,
    LAST,
    LINES,
    OUTER,
    REQUEST,
    STARTS,
    Reading,
)


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
