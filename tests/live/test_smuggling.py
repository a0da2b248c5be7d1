"""Request smuggling: bytes on which two servers have disagreed about where a request ends.

Each attack is an outer request, a hidden one, and a last one that closes the connection. A lenient parser
finds the hidden request in a body or in a header, or takes it for one where it is none. RFC 9112 is the
reference: `Attack.reading` has the answers that it gives to these bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from tests.live.server import Answer, ServerProcess, exchange, is_uuid

pytestmark = pytest.mark.once

OUTER, HIDDEN, LAST = "outer", "smuggled", "last"
"""Correlation ids of the three requests."""

REFUSAL = "refusal"
"""In place of a correlation id: an answer with a new one, to bytes that are no request."""

Reading = tuple[str, ...]

REQUEST: Reading = (OUTER, HIDDEN, LAST)
"""The hidden request is a request of its own."""

BODY: Reading = (OUTER, LAST)
"""The hidden request is part of the outer one."""

END: Reading = (OUTER,)
"""The connection ends with the outer request, wherever that ends."""

FAULTY: Reading = (REFUSAL,)
"""The end of the outer request is unknown, or it is no request, or not all of it is there."""


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
# The tenant does not exist: a body is read, parsed and refused.
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


# `<n>`: the length of the hidden request. BODY where the field counts, REQUEST where it is another field.
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
    b"Content-Length: -0": FAULTY,
    b"Content-Length: +<n>": FAULTY,
    b"Content-Length: -<n>": FAULTY,
    b"Content-Length: 0x<n>": FAULTY,
    b"Content-Length: <n>.0": FAULTY,
    b"Content-Length: <n>e0": FAULTY,
    b"Content-Length: 0_<n>": FAULTY,
    b'Content-Length: "<n>"': FAULTY,
    b"Content-Length: <n>;": FAULTY,
    b"Content-Length: <n> <n>": FAULTY,
    b"Content-Length: 0, <n>": FAULTY,
    b"Content-Length: <n>, 0": FAULTY,
    b"Content-Length: 0\r\nContent-Length: <n>": FAULTY,
    b"Content-Length: <n>\r\ncontent-length: 0": FAULTY,
    b"Content-Length: 0\r\n <n>": FAULTY,
    b"Content-Length: <n>\r0": FAULTY,
    b"Content-Length: 0\0<n>": FAULTY,
    b"Content-Length: <n>\x0b": FAULTY,
    b"Content-Length: \x0c<n>": FAULTY,
    b"Content-Length: <n>\x85": FAULTY,
    b"Content-Length: \xa0<n>": FAULTY,
    b"Content-Length: \xb2": FAULTY,
    b"Content-Length: \xd9\xa1": FAULTY,
    b"Content-Length: abc": FAULTY,
    b"Content-Length:": FAULTY,
    b"Content-Length: %d" % (2**32 + len(SMUGGLED)): FAULTY,
    b"Content-Length: %d" % (2**63 + len(SMUGGLED)): FAULTY,
    b"Content-Length: %d" % (2**64 + len(SMUGGLED)): FAULTY,
    b"Content-Length : <n>": FAULTY,
    b"Content-Length\t: <n>": FAULTY,
    b"Content-Length\x0b: <n>": FAULTY,
    b"Content-Length\xa0: <n>": FAULTY,
    b"Content-Length\0: <n>": FAULTY,
    b"\x0cContent-Length: <n>": FAULTY,
    b"Content Length: <n>": FAULTY,
    b"(Content-Length): <n>": FAULTY,
    b":Content-Length: <n>": FAULTY,
    b"Content-Length\r\n: <n>": FAULTY,
    b"Content-Length <n>": FAULTY,
    # A line feed alone may end a line or not: only a refusal is right for both.
    b"X: y\nContent-Length: <n>": FAULTY,
    b"X: y\rContent-Length: <n>": REQUEST,
    b"X: y\r\n Content-Length: <n>": REQUEST,
    b"X: y\r\n\tContent-Length: <n>": REQUEST,
    b"X: y\0Content-Length: <n>": REQUEST,
    b"Content_Length: <n>": REQUEST,
    b"X-Content-Length: <n>": REQUEST,
    b"Content--Length: <n>": REQUEST,
}

# BODY where the coding counts, REQUEST where it is another field, and a length or none counts.
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
    b"Transfer-Encoding: chunked, chunked": FAULTY,
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked": FAULTY,
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity": FAULTY,
    b"Transfer-Encoding: chunked, gzip": FAULTY,
    b"Transfer-Encoding: chunked\r\n , identity": FAULTY,
    b"Transfer-Encoding: identity": FAULTY,
    b"Transfer-Encoding:": FAULTY,
    b"Transfer-Encoding: xchunked": FAULTY,
    b"Transfer-Encoding: chunkedx": FAULTY,
    b"Transfer-Encoding: x chunked": FAULTY,
    b"Transfer-Encoding: chunked;q=1": FAULTY,
    b'Transfer-Encoding: "chunked"': FAULTY,
    b"Transfer-Encoding: chun\r\n ked": FAULTY,
    b"Transfer-Encoding: chunked\rX: y": FAULTY,
    b"Transfer-Encoding: chun\0ked": FAULTY,
    b"Transfer-Encoding: chunked\x0b": FAULTY,
    b"Transfer-Encoding: \x0cchunked": FAULTY,
    b"Transfer-Encoding: chunked\x85": FAULTY,
    b"Transfer-Encoding: \xa0chunked": FAULTY,
    b"Transfer-Encoding : chunked": FAULTY,
    b"Transfer-Encoding\t: chunked": FAULTY,
    b"Transfer-Encoding\x0b: chunked": FAULTY,
    b"Transfer-Encoding\0: chunked": FAULTY,
    b"\xa0Transfer-Encoding: chunked": FAULTY,
    b"Transfer Encoding: chunked": FAULTY,
    b"Transfer-Encoding\r\n: chunked": FAULTY,
    b"X: y\nTransfer-Encoding: chunked": FAULTY,
    b"X: y\rTransfer-Encoding: chunked": REQUEST,
    b"X: y\r\n Transfer-Encoding: chunked": REQUEST,
    b"X: y\0Transfer-Encoding: chunked": REQUEST,
    b"Transfer_Encoding: chunked": REQUEST,
    b"X-Transfer-Encoding: chunked": REQUEST,
    b"TE: chunked": REQUEST,
}

# What follows a head with `Transfer-Encoding: chunked`; `<hidden>`: the hidden request, `<size>`: its length.
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
    b"0\r\nX: y\r\n <hidden>": FAULTY,
    b"0\r\n<hidden>": FAULTY,
    b"0\r\nX : y\r\n\r\n<hidden>": FAULTY,
    b"0\r\nX: y\n\r\n<hidden>": FAULTY,
    b"0\r\n X: y\r\n\r\n<hidden>": FAULTY,
    b"0\r\n: y\r\n\r\n<hidden>": FAULTY,
    b" 0\r\n\r\n<hidden>": FAULTY,
    b"0 \r\n\r\n<hidden>": FAULTY,
    b"0\t\r\n\r\n<hidden>": FAULTY,
    b"+0\r\n\r\n<hidden>": FAULTY,
    b"-0\r\n\r\n<hidden>": FAULTY,
    b"0x0\r\n\r\n<hidden>": FAULTY,
    b"0_0\r\n\r\n<hidden>": FAULTY,
    b"0.0\r\n\r\n<hidden>": FAULTY,
    b"0,\r\n\r\n<hidden>": FAULTY,
    b"\xb2\r\n\r\n<hidden>": FAULTY,
    b"\r\n0\r\n\r\n<hidden>": FAULTY,
    b"0\0\r\n\r\n<hidden>": FAULTY,
    b"0\x0b\r\n\r\n<hidden>": FAULTY,
    b"0\n\r\n<hidden>": FAULTY,
    b"0\n\n<hidden>": FAULTY,
    b"0\r\r\n\r\n<hidden>": FAULTY,
    b"0\r\n\n<hidden>": FAULTY,
    b"0\r\n\r<hidden>": FAULTY,
    b"0\rX\r\n\r\n<hidden>": FAULTY,
    b"100000000\r\n\r\n<hidden>": FAULTY,
    b"8000000000000000\r\n\r\n<hidden>": FAULTY,
    b"10000000000000000\r\n\r\n<hidden>": FAULTY,
    b"ffffffffffffffff\r\n\r\n<hidden>": FAULTY,
    b"1" * 400 + b"\r\n\r\n<hidden>": FAULTY,
    b"2;\nxx\r\n<size>\r\n0\r\n\r\n<hidden>": FAULTY,
    b"0;a\n\r\n\r\n<hidden>": FAULTY,
    b"0;a\rb\r\n\r\n<hidden>": FAULTY,
    b"0;a\0b\r\n\r\n<hidden>": FAULTY,
    b"2\r\n{}0\r\n\r\n<hidden>": FAULTY,
    b"2\r\n{}\n0\r\n\r\n<hidden>": FAULTY,
    b"2\r\n{}\r0\r\n\r\n<hidden>": FAULTY,
    b"2\r\n{}xx0\r\n\r\n<hidden>": FAULTY,
    b"2\r\n{}\r\n\r\n0\r\n\r\n<hidden>": FAULTY,
    b"1\r\n{}\r\n0\r\n\r\n<hidden>": FAULTY,
    b"<size>\r\n<hidden>\r\n": FAULTY,
}

# The first line. The hidden request follows the head.
STARTS: dict[bytes, Reading] = {
    GET: REQUEST,
    b"\r\n" + GET: REQUEST,
    b"\r\n\r\n\r\n" + GET: REQUEST,
    b"\n" + GET: REQUEST,
    b" " + GET: REQUEST,
    GET + b" ": REQUEST,
    GET + b"\n": FAULTY,
    GET + b"\nX: y": REQUEST,
    GET + b"\rX: y": FAULTY,
    GET + b"\r\n X: y": REQUEST,
    GET + b"\0": FAULTY,
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
    b"GET /healthz HTTP/0.9": FAULTY,
    b"GET /healthz HTTP/1.10": FAULTY,
    b"GET /healthz HTTP/01.1": FAULTY,
    b"GET /healthz HTTP/1": FAULTY,
    b"GET /healthz http/1.1": FAULTY,
    b"GET /healthz HTTP/2.0": FAULTY,
    b"GET /healthz": FAULTY,
    b"GET /healthz HTTP/1.1 HTTP/1.1": FAULTY,
    b"GET /\0 HTTP/1.1": FAULTY,
    b"G(T /healthz HTTP/1.1": FAULTY,
    b"HTTP/1.1 200 OK": FAULTY,
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n": FAULTY,
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
    b"Connection : close": FAULTY,
    b"Connection: Upgrade\r\nUpgrade: websocket": REQUEST,
    b"Connection: Upgrade\r\nUpgrade: TLS/1.2": REQUEST,
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__": REQUEST,
    b"Expect: 100-continue": REQUEST,
    b"Expect : 100-continue": FAULTY,
    b"Host: localhost": FAULTY,
    b"Host: elsewhere.example": FAULTY,
    b"X: y\r\n\0": FAULTY,
    b": y": FAULTY,
    b":": FAULTY,
    b"X": FAULTY,
    b"X\x7f: y": FAULTY,
    b"X\xc2\xad: y": FAULTY,
    b"X@: y": FAULTY,
    b"X: y\x01z": REQUEST,
    b"X: \xff": REQUEST,
    b"X!#$%&'*+.^_`|~: y": REQUEST,
    b"x_correlation_id: smuggled": REQUEST,
    b"X: y\r\n x-correlation-id: smuggled": REQUEST,
    b"X: y\0x-correlation-id: smuggled": REQUEST,
}

# A line beside the right length of the hidden request.
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
    """Yield all attacks. Where RFC 9112 leaves a choice, `reading` is what the more lenient one yields."""
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
    yield from length_too_small_or_large()


def coding_attacks(line: bytes, reading: Reading) -> Iterator[Attack]:
    """The coding alone, and with a length by which the hidden request is in the body, or is not."""
    counts = reading == BODY
    ignored = reading == REQUEST
    # Where both count, the length does not, and the connection must end (RFC 9112, section 6.1).
    both = END if counts else reading
    name = f"coding {line!r}"
    alone = REQUEST if counts else (OUTER, REFUSAL) if ignored else reading
    yield Attack(name, outer(POST, line) + BEHIND_CHUNKS, alone)
    sent = outer(POST, length(BEHIND_CHUNKS), line) + BEHIND_CHUNKS
    yield Attack(f"{name} after the length of all", sent, BODY if ignored else both)
    sent = outer(POST, line, length(SIZE)) + IN_CHUNK
    after_size = (OUTER, HIDDEN, REFUSAL)
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
    """One is demanded; whether it is allowed is no question of the framing."""
    fields = FIELDS[1:]
    for line in (b"X: y", b"Host:", b"Host: elsewhere", b"Host: a, b", b"Host: localhost/x", b"Host: a@b"):
        sent = outer(GET, line, length(SMUGGLED), fields=fields) + SMUGGLED
        yield Attack(f"host {line!r}", sent, FAULTY if line in {b"X: y", b"Host:"} else BODY)


def length_too_small_or_large() -> Iterator[Attack]:
    for given, body, reading in (
        (1, b"X" + SMUGGLED, REQUEST),
        (len(SMUGGLED) - 2, SMUGGLED, BODY),  # an empty line before a request is no part of it
        (len(SMUGGLED) - 5, SMUGGLED, (OUTER, REFUSAL)),
        (len(SMUGGLED) + 2, SMUGGLED, BODY),  # T is a method
        (len(SMUGGLED + GOODBYE) + 1, SMUGGLED, FAULTY),
    ):
        sent = outer(POST, b"Content-Length: %d" % given) + body
        yield Attack(f"length {given} of {len(body)}", sent, reading)


ATTACKS = [Attack(name, sent + GOODBYE, reading) for name, sent, reading in attacks()]

SERVED = [
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
    # Clients offer these by default, and go on in HTTP/1.1.
    "line b'Connection: Upgrade\\r\\nUpgrade: websocket'",
    "line b'Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: h2c\\r\\nHTTP2-Settings: AAMAAABkAAQAAP__'",
    "beside a length b'Expect: 100-continue'",
    "b'HEAD /healthz HTTP/1.1' with a body",
    "b'DELETE /healthz HTTP/1.1' with a body",
]
"""What is no attack: refusing everything does not pass."""

REFUSED = {
    "request_malformed",
    "body_too_large",
    "uri_too_long",
    "headers_too_large",
    "expectation_failed",
    "not_implemented",
}
"""The reasons for which the server refuses bytes. What the API refuses has been read as a request."""


def is_refusal(answer: Answer) -> bool:
    """True if it refuses bytes that are no request, in the documented JSON."""
    if answer.headers["Content-Type"] != "application/json" or answer.status_code < 400:
        return False
    body = answer.json()
    return (
        set(body) == {"code", "reason", "message", "correlationId"}
        and body["reason"] in REFUSED
        and body["correlationId"] == answer.headers["x-correlation-id"]
    )


def explain(attack: Attack, answers: list[Answer]) -> str | None:
    """Return what is wrong with these answers, or None.

    Right are the first answers of the reading, or all; a refusal may stand in the place of the last.
    """
    ids = [answer.headers["x-correlation-id"] for answer in answers]
    closes = [answer.headers["Connection"] == "close" for answer in answers]
    if any(answer.status_code == 500 for answer in answers):
        return "a crash"
    if not answers or closes != [False] * (len(answers) - 1) + [True]:
        return "the last answer, and only that, must end the connection"
    if len(answers) > len(attack.reading) or tuple(ids[:-1]) != attack.reading[: len(ids) - 1]:
        return "the requests are others"
    # That of a request whose head could be read, but not its body, may be known.
    expected = OUTER if len(answers) == 1 else attack.reading[len(answers) - 1]
    refused = is_refusal(answers[-1]) and (ids[-1] == expected or is_uuid(ids[-1]))
    if not refused and ids[-1] != attack.reading[len(answers) - 1]:
        return "the last request is another"
    if attack.name in SERVED and tuple(ids) != attack.reading:
        return "a good request is not served"
    return None


def answers_to(server: ServerProcess, attack: Attack, piece: int | None) -> list[Answer] | None:
    """Return the final answers; None if the client was too slow to get them, which only pieces are."""
    # Nothing more comes: a request that is not all there ends here. The others end before.
    incomplete = attack.reading[-1] == REFUSAL
    heads = int(attack.sent.startswith(b"HEAD "))
    try:
        answers = exchange(server.port, attack.sent, half_close=incomplete, heads=heads, piece=piece)
    except OSError as error:
        if piece is None or isinstance(error, TimeoutError):
            raise
        return None
    return [answer for answer in answers if answer.status_code >= 200]  # without 100 Continue


@pytest.mark.parametrize("piece", [None, 11])
def test_no_request_is_smuggled(server: ServerProcess, piece: int | None) -> None:
    assert {attack.name for attack in ATTACKS} > set(SERVED)
    assert len({attack.sent for attack in ATTACKS}) == len(ATTACKS)
    logged = len(server.log)
    with ThreadPoolExecutor(4) as pool:
        received = list(pool.map(lambda attack: answers_to(server, attack, piece), ATTACKS))
    wrong = [
        f"{attack.name}: {why}: {attack.reading} expected, not "
        + ", ".join(f"{one.status_code} {one.headers['x-correlation-id']}" for one in answers)
        for attack, answers in zip(ATTACKS, received, strict=True)
        if answers is not None and (why := explain(attack, answers))
    ]
    assert not wrong, "\n".join(wrong)
    assert '"ERROR"' not in server.log[logged:], server.log


def test_a_trailer_is_no_header(server: ServerProcess) -> None:
    fields = [b"Host: localhost", b"Content-Type: application/json"]
    trailer = b"nv-tenant-id: nobody\r\nx-auth-service-id: Login\r\nx-correlation-id: smuggled\r\n"
    sent = outer(POST, CHUNKED, b"Connection: close", fields=fields) + b"2\r\n{}\r\n0\r\n" + trailer + b"\r\n"
    (answer,) = exchange(server.port, sent)
    assert (answer.status_code, answer.json()["reason"]) == (400, "header_missing")
    assert is_uuid(answer.headers["x-correlation-id"])
