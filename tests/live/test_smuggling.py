"""Request smuggling: data for which HTTP parsers disagree about the end of a request.

Each attack consists of an outer request, a hidden request, and a last one that closes the connection. A
lenient parser executes the hidden request although it is part of a body or a header. `Attack.reading` is the
interpretation of RFC 9112.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.server import Response, ServerProcess, exchange_bytes, is_uuid
from tests.support.smuggling import ATTACKS, CHUNKED, POST, Attack, outer
from tests.support.smuggling_heads import ERROR, OUTER

pytestmark = pytest.mark.once

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
