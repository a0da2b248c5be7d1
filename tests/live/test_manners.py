"""The server on the wire: what it answers to what is hardly a request, and what it never tells."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import psutil
import pytest

from ags.sessions.models import SessionToken
from tests.conftest import SERVICE, HeadEnd
from tests.live.conftest import at, warm
from tests.live.server import Answer, ServerProcess, exchange
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.once

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
GOODBYE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
TOKEN = b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
TWO_CHUNKS = b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"


@pytest.fixture(autouse=True)
def _no_errors_in_the_log(server: ServerProcess) -> Iterator[None]:
    known = server.log.count('"ERROR"')
    yield
    assert server.log.count('"ERROR"') == known, server.log


def posting(head_end: HeadEnd, *lines: str, service: str = SERVICE) -> bytes:
    """The head of a good getSessionToken request, and these lines."""
    given = [f"nv-tenant-id: {head_end.tenant_id}", f"x-auth-service-id: {service}", *lines]
    return TOKEN + JSON + "".join(f"{line}\r\n" for line in given).encode() + b"\r\n"


def body_with(token: str) -> bytes:
    return json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": token}]}).encode()


def in_chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def refused(answer: Answer, status: int, reason: str) -> None:
    """Check the whole of a refusal."""
    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert set(answer.json()) == {"code", "reason", "message", "correlationId"}
    assert answer.json()["code"] // 100 == status
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["x-correlation-id"] == answer.json()["correlationId"]
    assert "Server" not in answer.headers


def last_answer(answer: Answer) -> bool:
    return answer.headers["Connection"] == "close"


# What is sent, and the status and reason of the one answer; what follows it on the wire is never read.
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
    "many headers": (HEALTH[:-2] + b"X-A: a\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
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
    # Two readings of where a request ends: the way to smuggle one.
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
    "chunked, but not at last": (
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
def test_what_is_not_http_is_refused_in_json_and_ends_the_connection(
    server: ServerProcess, sent: bytes, status: int, reason: str
) -> None:
    (answer,) = exchange(server.port, sent + GOODBYE)
    refused(answer, status, reason)
    assert last_answer(answer)


def test_what_never_became_a_request_is_logged_as_one(transactional_db: None) -> None:
    with ServerProcess(AGS_LOG_LEVEL="INFO") as server:
        (answer,) = exchange(server.port, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n")
        lines = [json.loads(line) for line in server.log.splitlines()]
    (line,) = (line for line in lines if line.get("correlation_id") == answer.headers["x-correlation-id"])
    assert line.pop("time")
    assert line == {
        "level": "INFO",
        "logger": "ags.request",
        "message": "request",
        "correlation_id": answer.json()["correlationId"],
        "method": None,
        "route": None,
        "tenant": None,
        "service": None,
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
def test_chunks_that_are_none_are_400_and_end_the_connection(
    server: ServerProcess, nagra: HeadEnd, chunks: bytes
) -> None:
    (answer,) = exchange(server.port, posting(nagra, "Transfer-Encoding: chunked") + chunks + GOODBYE)
    refused(answer, 400, "request_malformed")
    assert last_answer(answer)


def test_a_body_that_breaks_off_is_400_even_if_it_could_be_read(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    warm(server, nagra)
    body = body_with(nagra.token(OpfAccountId="broken-off"))
    without_last_chunk = b"%x\r\n%s\r\n" % (len(body), body)
    for head, part in (("Content-Length: 1000", body), ("Transfer-Encoding: chunked", without_last_chunk)):
        (answer,) = exchange(server.port, posting(nagra, head) + part, half_close=True)
        refused(answer, 400, "request_malformed")
        assert last_answer(answer)
    broken_off = SessionToken.objects.for_tenant(nagra.tenant_id).filter(account_id="broken-off")
    assert not broken_off.exists()


def test_the_server_is_not_named_whatever_it_answers(server: ServerProcess, nagra: HeadEnd) -> None:
    https = {"X-Forwarded-Proto": "https"}
    assert warm(server, nagra).discover().status_code == 200
    answers = {
        200: at(server, nagra).discover(),
        301: server.get("/static/admin/css/base.css"),
        400: server.get("/ags/servicediscovery"),
        404: server.get("/nowhere"),
        405: server.generic("POST", "/healthz", b""),
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {n: n for n in answers}
    pages = [server.get("/static/admin/css/base.css", headers=https), server.get("/docs/", headers=https)]
    assert [page.status_code for page in pages] == [200, 200]
    for answer in [*answers.values(), *pages]:
        assert "Server" not in answer.headers
        assert b"gunicorn" not in answer.content.lower()


def test_header_names_with_underscores_never_arrive(server: ServerProcess, nagra: HeadEnd) -> None:
    warm(server, nagra)
    name = nagra.tenant_id
    missing = server.get(
        "/ags/servicediscovery", headers={"nv_tenant_id": name, "x_correlation_id": "underscored"}
    )
    refused(missing, 400, "header_missing")
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
    # Nor does the word of a proxy, spelt so.
    assert server.get("/docs/", headers={"X_Forwarded_Proto": "https"}).status_code == 301


@pytest.mark.parametrize("name", ["x-correlation-id", "nv-tenant-id", "x-auth-service-id"])
def test_a_single_header_sent_twice_is_400(server: ServerProcess, nagra: HeadEnd, name: str) -> None:
    body = body_with(nagra.token())
    head = posting(nagra, f"{name}: b", f"Content-Length: {len(body)}", "x-correlation-id: a")
    answer, _ = exchange(server.port, head + body + GOODBYE)
    refused(answer, 400, "header_repeated")
    assert name in answer.json()["message"]


def test_a_body_in_chunks_is_a_body(server: ServerProcess, nagra: HeadEnd) -> None:
    warm(server, nagra)
    for size in (1, 100, 100_000):
        chunks = in_chunks(body_with(nagra.token()), size)
        answer, next_answer = exchange(
            server.port, posting(nagra, "Transfer-Encoding: chunked") + chunks + GOODBYE
        )
        assert answer.status_code == 200
        assert set(answer.json()) == {"sessionToken"}
        assert next_answer.json() == {"status": "alive"}


def test_a_client_that_waits_to_be_asked_for_its_body_is_asked(server: ServerProcess, nagra: HeadEnd) -> None:
    warm(server, nagra)
    body = body_with(nagra.token())
    head = posting(nagra, "Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close")
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as wire:
        wire.sendall(head)
        assert wire.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.sendall(body)
        assert wire.recv(100).startswith(b"HTTP/1.1 200 ")


LARGE = b" " * 65_537
TOO_LARGE = {
    "sent": ("Content-Length: 65537", LARGE),
    "a megabyte": ("Content-Length: 1000000", b" " * 1_000_000),
    "announced": ("Content-Length: 100000000", b""),
    "in one chunk": ("Transfer-Encoding: chunked", in_chunks(LARGE, len(LARGE))),
    "in many chunks": ("Transfer-Encoding: chunked", in_chunks(LARGE * 2, 1000)),
}


@pytest.mark.parametrize(("head", "body"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_a_body_over_the_limit_is_413_unread_and_ends_the_connection(
    server: ServerProcess, nagra: HeadEnd, head: str, body: bytes
) -> None:
    # All of it, and all but its end, which is never sent: who waited for that would answer 400.
    for sent in (body + GOODBYE, body[:-1]):
        (answer,) = exchange(server.port, posting(nagra, head) + sent)
        refused(answer, 413, "body_too_large")
        assert last_answer(answer)


def test_a_form_over_the_limit_is_413_unread_and_ends_the_connection(server: ServerProcess) -> None:
    head = b"POST /admin/login/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\n\r\n" + b"x" * 3_000_000
    (answer,) = exchange(server.port, head + form + GOODBYE)
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "text/html; charset=utf-8")
    assert last_answer(answer)


def test_a_connection_is_kept_after_a_refusal_whose_body_was_not_read(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    warm(server, nagra)
    good = body_with(nagra.token())
    many = [
        (b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 404),
        (b"PUT /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}", 405),
        (TOKEN + JSON + b"Content-Length: 2\r\n\r\n{}", 400),
        (TOKEN.replace(b"localhost", b"elsewhere") + JSON + b"Content-Length: 2\r\n\r\n{}", 400),
        (posting(nagra, "Content-Encoding: gzip", "Content-Length: 2") + b"{}", 415),
        (posting(nagra, "Content-Length: 2") + b"{]", 400),
        (posting(nagra, f"Content-Length: {len(good)}", service="No such") + good, 403),
        (posting(nagra, "Transfer-Encoding: chunked") + TWO_CHUNKS, 400),
        (posting(nagra, "Content-Length: 90") + body_with("not a token").ljust(90), 401),
        (posting(nagra, f"Content-Length: {len(good)}") + good, 200),
    ]
    answers = exchange(server.port, b"".join(sent for sent, _ in many) + GOODBYE)
    assert [answer.status_code for answer in answers] == [*(status for _, status in many), 200]


def test_head_tells_the_length_and_sends_nothing(server: ServerProcess, nagra: HeadEnd) -> None:
    name = warm(server, nagra).tenant_id
    ask = f" /ags/servicediscovery HTTP/1.1\r\nHost: localhost\r\nnv-tenant-id: {name}\r\n\r\n".encode()
    page = b" /docs/nowhere HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n\r\n"
    health = b" /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for line in (ask, health, page, b" /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        head, get, _ = exchange(server.port, b"HEAD" + line + b"GET" + line + GOODBYE, heads=1)
        assert head.status_code == get.status_code
        assert head.headers["Content-Length"] == get.headers["Content-Length"] == str(len(get.content))


def test_a_client_that_never_hangs_up_keeps_nobody_waiting(server: ServerProcess) -> None:
    """The server has ended these connections and waits for the clients to do so: it answers others."""

    def answers_meanwhile() -> bool:
        with ExitStack() as open_ones:
            ports = []
            for _ in range(2):
                wire = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
                open_ones.enter_context(wire)
                wire.sendall(GOODBYE)
                assert wire.recv(12) == b"HTTP/1.1 200"
                ports.append(wire.getsockname()[1])
            assert server.get("/readyz").status_code == 200
            states = server.connections()
            return all(states.get(port) in {psutil.CONN_FIN_WAIT1, psutil.CONN_FIN_WAIT2} for port in ports)

    # On a slow machine the time for one of them may have passed before the answer.
    wait_until(answers_meanwhile, "others are answered only after those that do not hang up")
