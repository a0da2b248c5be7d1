"""HTTP on the sock: invalid requests, limits, and response headers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from ags import __version__
from ags.sessions.models import SessionToken
from tests.support.clients import HeadEnd
from tests.support.live import (
    JSON,
    TOKEN,
    token_request_body,
    token_request_head,
    use_server,
    wait_until_served,
)
from tests.support.server import Response, ServerProcess, exchange_bytes
from tests.support.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOODBYE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
TWO_CHUNKS = b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"


@pytest.fixture(autouse=True)
def _check_log_for_errors(server: ServerProcess) -> Iterator[None]:
    errors_before = server.log.count('"ERROR"')
    yield
    assert server.log.count('"ERROR"') == errors_before, server.log


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def check_error(response: Response, status: int, reason: str) -> None:
    """Check an error response."""
    assert (response.status_code, response.json()["reason"]) == (status, reason)
    assert set(response.json()) == {"code", "reason", "message", "correlationId"}
    assert response.json()["code"] // 100 == status
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["x-correlation-id"] == response.json()["correlationId"]
    assert "Server" not in response.headers


def closes_connection(response: Response) -> bool:
    return response.headers["Connection"] == "close"


# Data, and the status and reason of the only response. The server ignores everything after it.
NOT_HTTP = {
    "no request line": (b"hello\r\n\r\n", 400, "request_malformed"),
    "no such version": (b"GET /healthz HTTP/3.0\r\n\r\n", 400, "request_malformed"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "request_malformed"),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: localhost\n\n", 400, "request_malformed"),
    "a NUL in the path": (b"GET /\0 HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "request_malformed"),
    "a long request line": (
        b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        414,
        "uri_too_long",
    ),
    "a large header": (HEALTH[:-2] + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
    "requests headers": (HEALTH[:-2] + b"X-A: a\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
    "large headers together": (
        HEALTH[:-2] + b"".join(b"X-%d: %b\r\n" % (number, b"a" * 8000) for number in range(9)) + b"\r\n",
        431,
        "headers_too_large",
    ),
    "no Host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "request_malformed"),
    "an empty Host": (b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 400, "request_malformed"),
    "Host twice": (HEALTH[:-2] + b"Host: localhost\r\n\r\n", 400, "request_malformed"),
    "Content-Type twice": (
        TOKEN + JSON + JSON + b"Content-Length: 2\r\n\r\n{}",
        400,
        "request_malformed",
    ),
    "a folded header": (HEALTH[:-2] + b"X-A: a\r\n b\r\n\r\n", 400, "request_malformed"),
    "a space before the colon": (HEALTH[:-2] + b"X-A : a\r\n\r\n", 400, "request_malformed"),
    "an unknown expectation": (
        TOKEN + JSON + b"Expect: wonders\r\nContent-Length: 2\r\n\r\n",
        417,
        "expectation_failed",
    ),
    # Ambiguous ends of a request, which allow request smuggling.
    "two lengths": (
        TOKEN + JSON + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        400,
        "request_malformed",
    ),
    "a list of lengths": (TOKEN + JSON + b"Content-Length: 2, 2\r\n\r\n{}", 400, "request_malformed"),
    "a signed length": (TOKEN + JSON + b"Content-Length: +2\r\n\r\n{}", 400, "request_malformed"),
    "a negative length": (TOKEN + JSON + b"Content-Length: -1\r\n\r\n{}", 400, "request_malformed"),
    "a length of more digits than a number has": (
        TOKEN + JSON + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n{}",
        400,
        "request_malformed",
    ),
    "a length of other digits": (
        TOKEN + JSON + b"Content-Length: \xb2\r\n\r\n{}",
        400,
        "request_malformed",
    ),
    "a length and chunks": (
        TOKEN + JSON + b"Content-Length: 2\r\n" + CHUNKED + TWO_CHUNKS,
        400,
        "request_malformed",
    ),
    "chunked twice": (
        TOKEN + JSON + b"Transfer-Encoding: chunked\r\n" + CHUNKED + TWO_CHUNKS,
        400,
        "request_malformed",
    ),
    "chunked, but not last": (
        TOKEN + JSON + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + TWO_CHUNKS,
        400,
        "request_malformed",
    ),
    "chunked before the colon": (
        TOKEN + JSON + b"Transfer-Encoding : chunked\r\n\r\n" + TWO_CHUNKS,
        400,
        "request_malformed",
    ),
    "chunked in HTTP/1.0": (
        TOKEN.replace(b"1.1", b"1.0") + JSON + CHUNKED + TWO_CHUNKS,
        400,
        "request_malformed",
    ),
    "an unknown coding": (
        TOKEN + JSON + b"Transfer-Encoding: xchunked\r\n\r\n" + TWO_CHUNKS,
        501,
        "not_implemented",
    ),
}


@pytest.mark.parametrize(("sent", "status", "reason"), NOT_HTTP.values(), ids=NOT_HTTP)
def test_invalid_http_is_an_error_and_closes_the_connection(
    server: ServerProcess, sent: bytes, status: int, reason: str
) -> None:
    (response,) = exchange_bytes(server.port, sent + GOODBYE)
    check_error(response, status, reason)
    assert closes_connection(response)


def test_invalid_request_has_an_access_log_line(transactional_db: None) -> None:
    with ServerProcess(AGS_LOG_LEVEL="INFO") as server:
        (response,) = exchange_bytes(server.port, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n")
        line = server.request_line(response.headers["x-correlation-id"])
        assert line.pop("process") in server.workers()
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "version": __version__,
        "correlation_id": response.json()["correlationId"],
        "client_address": "127.0.0.1",
        "method": None,
        "route": None,
        "tenant": None,
        "service": None,
        "kid": None,
        "outcome": "refused",
        "reason": "uri_too_long",
        "status": 414,
        "duration_ms": None,
    }


BAD_CHUNKS = {
    "a size of other characters": b"zz\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "a signed size": b"+2\r\n{}\r\n0\r\n\r\n",
    "more than the size": b"2\r\n{}}\r\n0\r\n\r\n",
    "a bare line feed in an extension": b"2;a\nb\r\n{}\r\n0\r\n\r\n",
    "a trailer that changes the request": b"2\r\n{}\r\n0\r\nContent-Length: 3\r\n\r\n",
    "an endless size": b"1" * 9000,
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_invalid_chunks_are_400_and_close_the_connection(
    server: ServerProcess, nagra: HeadEnd, chunks: bytes
) -> None:
    (response,) = exchange_bytes(
        server.port, token_request_head(nagra, "Transfer-Encoding: chunked") + chunks + GOODBYE
    )
    check_error(response, 400, "request_malformed")
    assert closes_connection(response)


def test_incomplete_body_is_400(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    body = token_request_body(nagra.token(OpfAccountId="broken-off"))
    without_last_chunk = b"%x\r\n%s\r\n" % (len(body), body)
    for head, part in (("Content-Length: 1000", body), ("Transfer-Encoding: chunked", without_last_chunk)):
        (response,) = exchange_bytes(server.port, token_request_head(nagra, head) + part, half_close=True)
        check_error(response, 400, "request_malformed")
        assert closes_connection(response)
    broken_off = SessionToken.objects.for_tenant(nagra.tenant_id).filter(account_id="broken-off")
    assert not broken_off.exists()


def test_responses_have_no_server_header(server: ServerProcess, nagra: HeadEnd) -> None:
    https = {"X-Forwarded-Proto": "https"}
    assert wait_until_served(server, nagra).discover().status_code == 200
    responses = {
        200: use_server(server, nagra).discover(),
        301: server.get("/static/admin/css/base.css"),
        400: server.get("/ags/servicediscovery"),
        404: server.get("/nowhere"),
        405: server.generic("POST", "/healthz", b""),
    }
    assert {status: response.status_code for status, response in responses.items()} == {
        n: n for n in responses
    }
    pages = [server.get("/static/admin/css/base.css", headers=https), server.get("/docs/", headers=https)]
    assert [page.status_code for page in pages] == [200, 200]
    for response in [*responses.values(), *pages]:
        assert "Server" not in response.headers
        assert b"gunicorn" not in response.content.lower()


def test_headers_with_underscores_are_ignored(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    name = nagra.tenant_id
    missing = server.get(
        "/ags/servicediscovery", headers={"nv_tenant_id": name, "x_correlation_id": "underscored"}
    )
    check_error(missing, 400, "header_missing")
    assert missing.headers["x-correlation-id"] != "underscored"
    both = server.get(
        "/ags/servicediscovery",
        headers={
            "nv_tenant_id": "other",
            "nv-tenant-id": name,
            "x-correlation-id": "mine",
            "x_correlation_id": "b",
        },
    )
    assert both.status_code == 200
    assert both.headers["x-correlation-id"] == "mine"
    assert server.get("/x/healthz", headers={"SCRIPT_NAME": "/x"}).status_code == 404
    assert server.get("/healthz", headers={"SCRIPT_NAME": "/x"}).status_code == 200
    # The same for the header of a proxy.
    assert server.get("/docs/", headers={"X_Forwarded_Proto": "https"}).status_code == 301


@pytest.mark.parametrize("name", ["x-correlation-id", "nv-tenant-id", "x-auth-service-id"])
def test_repeated_header_is_400(server: ServerProcess, nagra: HeadEnd, name: str) -> None:
    body = token_request_body(nagra.token())
    head = token_request_head(nagra, f"{name}: b", f"Content-Length: {len(body)}", "x-correlation-id: a")
    response, _ = exchange_bytes(server.port, head + body + GOODBYE)
    check_error(response, 400, "header_repeated")
    assert name in response.json()["message"]


def test_chunked_body(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    for size in (1, 100, 100_000):
        chunks = in_chunks(token_request_body(nagra.token()), size)
        response, next_answer = exchange_bytes(
            server.port, token_request_head(nagra, "Transfer-Encoding: chunked") + chunks + GOODBYE
        )
        assert response.status_code == 200
        assert set(response.json()) == {"sessionToken"}
        assert next_answer.json() == {"status": "alive"}


def test_expect_100_continue(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    body = token_request_body(nagra.token())
    head = token_request_head(
        nagra, "Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
        sock.sendall(head)
        assert sock.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


LARGE = b" " * 65_537
TOO_LARGE = {
    "sent": ("Content-Length: 65537", LARGE),
    "a megabyte": ("Content-Length: 1000000", b" " * 1_000_000),
    "announced": ("Content-Length: 100000000", b""),
    "in one chunk": ("Transfer-Encoding: chunked", in_chunks(LARGE, len(LARGE))),
    "in requests chunks": ("Transfer-Encoding: chunked", in_chunks(LARGE * 2, 1000)),
}


@pytest.mark.parametrize(("head", "body"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_large_body_is_413_and_closes_the_connection(
    server: ServerProcess, nagra: HeadEnd, head: str, body: bytes
) -> None:
    # With and without the end of the body: a server that waits for the end would return 400.
    for sent in (body + GOODBYE, body[:-1]):
        (response,) = exchange_bytes(server.port, token_request_head(nagra, head) + sent)
        check_error(response, 413, "body_too_large")
        assert closes_connection(response)


def test_large_form_is_413_and_closes_the_connection(server: ServerProcess) -> None:
    head = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + b"x" * 3_000_000
    (response,) = exchange_bytes(server.port, head + form + GOODBYE)
    assert (response.status_code, response.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert closes_connection(response)


def test_connection_is_kept_after_an_error(server: ServerProcess, nagra: HeadEnd) -> None:
    wait_until_served(server, nagra)
    valid_body = token_request_body(nagra.token())
    requests = [
        (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"PUT /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405),
        (TOKEN + JSON + b"Content-Length: 2\r\n\r\n{}", 400),
        (TOKEN.replace(b"localhost", b"elsewhere") + JSON + b"Content-Length: 2\r\n\r\n{}", 400),
        (token_request_head(nagra, "Content-Encoding: gzip", "Content-Length: 2") + b"{}", 415),
        (token_request_head(nagra, "Content-Length: 2") + b"{]", 400),
        (
            token_request_head(nagra, f"Content-Length: {len(valid_body)}", service="No such") + valid_body,
            403,
        ),
        (token_request_head(nagra, "Transfer-Encoding: chunked") + TWO_CHUNKS, 400),
        (token_request_head(nagra, "Content-Length: 90") + token_request_body("not a token").ljust(90), 401),
        (token_request_head(nagra, f"Content-Length: {len(valid_body)}") + valid_body, 200),
    ]
    responses = exchange_bytes(server.port, b"".join(sent for sent, _ in requests) + GOODBYE)
    assert [response.status_code for response in responses] == [*(status for _, status in requests), 200]


def test_head_has_content_length_and_no_body(server: ServerProcess, nagra: HeadEnd) -> None:
    name = wait_until_served(server, nagra).tenant_id
    discovery = f" /ags/servicediscovery HTTP/1.1\r\nHost: localhost\r\nnv-tenant-id: {name}\r\n\r\n".encode()
    page = b" /docs/nowhere HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n\r\n"
    health = b" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for line in (discovery, health, page, b" /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        head, get, _ = exchange_bytes(server.port, b"HEAD" + line + b"GET" + line + GOODBYE, heads=1)
        assert head.status_code == get.status_code
        assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.content))


def test_client_that_does_not_close_its_connection_does_not_block_others(server: ServerProcess) -> None:
    """While the server waits for clients to close their connections, it serves others."""

    def serves_others() -> bool:
        with ExitStack() as stack:
            ports = []
            for _ in range(2):
                sock = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
                stack.enter_context(sock)
                sock.sendall(GOODBYE)
                assert sock.recv(12) == b"HTTP/1.1 200"
                ports.append(sock.getsockname()[1])
            assert server.get("/readyz").status_code == 200
            states = server.connections()
            return all(states.get(port) in {psutil.CONN_FIN_WAIT1, psutil.CONN_FIN_WAIT2} for port in ports)

    # On a slow machine, a connection may expire before the response.
    wait_until(serves_others, "other clients have to wait")
