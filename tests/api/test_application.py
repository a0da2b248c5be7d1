"""The application on any ASGI server: what it demands of a request, and what it sends."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from ags.api.request.body import MAX_BYTES
from ags.asgi import application
from ags.database.engine.base import DatabaseWrapper
from tests.event_loop import make_scope

ID = b"call-4711"
SECRET_TEXT = "mark" + "er-0815"  # as no line of code holds it
JSON = (b"content-type", b"application/json")
END = {"type": "http.request", "body": b""}

Answer = tuple[int, dict[str, str], bytes]


def ask(
    path: str, *headers: tuple[bytes, bytes], method: str = "GET", received: Any = (END,), **scope: Any
) -> Answer:
    """Return what the application sends when it receives these messages, one after the other."""
    messages, sent = iter(received), []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    usual = make_scope(method, path, [(b"host", b"localhost"), (b"x-correlation-id", ID), *headers])
    asyncio.run(application({**usual, **scope}, receive, send))
    head, *parts = sent
    assert not parts[-1].get("more_body")
    lines = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], lines, b"".join(part["body"] for part in parts)


def refused(answer: Answer, status: int, reason: str) -> None:
    found, headers, body = answer
    assert (found, json.loads(body)["reason"]) == (status, reason)
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-correlation-id"] == ID.decode()
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    assert SECRET_TEXT.encode() not in body


def post(*bodies: bytes, headers: Any = (JSON,), last: Any = None) -> Answer:
    """Send a body in these parts; then nothing more, or that message."""
    parts = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    chunked = (b"transfer-encoding", b"chunked")
    tenant = (b"nv-tenant-id", b"nobody")
    service = (b"x-auth-service-id", b"Login")
    received = [*parts, last or END]
    return ask("/ags/getSessionToken", chunked, tenant, service, *headers, method="POST", received=received)


AMBIGUOUS = {
    "two hosts": [(b"host", b"localhost")],
    "two lengths": [(b"content-length", b"2"), (b"content-length", b"2")],
    "two content types": [JSON, JSON],
    "no number as length": [(b"content-length", SECRET_TEXT.encode())],
}


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_a_request_that_can_be_read_in_two_ways_is_400(headers: Any) -> None:
    refused(ask("/healthz", *headers), 400, "request_malformed")


@pytest.mark.parametrize("host", [[], [(b"host", b"")]])
def test_a_request_without_a_host_is_400_but_in_the_oldest_version(host: Any) -> None:
    headers = [*host, (b"x-correlation-id", ID)]
    refused(ask("/healthz", headers=headers), 400, "request_malformed")
    assert ask("/healthz", headers=headers, http_version="1.0")[0] == 200


def test_a_body_in_parts_is_read_to_its_end() -> None:
    status, _, body = post(b"{", b"", b"}")
    assert (status, json.loads(body)["reason"]) == (400, "parameters_malformed")


def test_a_body_that_is_too_large_is_read_to_the_limit_only() -> None:
    refused(post(b" " * MAX_BYTES, b" ", last={"type": "never"}), 413, "body_too_large")


def test_a_body_whose_client_goes_is_no_body(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    refused(post(b"{}", last={"type": "http.disconnect"}), 400, "request_malformed")
    (line,) = caplog.records
    assert vars(line)["reason"] == "body_unreadable"


def test_what_the_server_could_not_read_is_refused_under_the_admin_by_a_page() -> None:
    refusal = {"ags.refusal": {"status": 431}}
    refused(ask("/nowhere", extensions=refusal), 431, "headers_too_large")
    status, headers, body = ask("/admin/", extensions=refusal)
    assert (status, headers["content-type"]) == (431, "text/html; charset=utf-8")
    assert b"<h2" in body


def test_the_refusal_of_a_head_has_no_body() -> None:
    _, headers, body = ask("/healthz", (b"host", b"localhost"), method="HEAD")
    assert body == b""
    assert int(headers["content-length"]) > 0


def test_a_file_comes_in_blocks(db: None) -> None:
    status, headers, body = ask("/static/admin/css/base.css")
    assert status == 200
    assert headers["content-length"] == str(len(body))
    assert len(body) > 4096


def test_a_crash_is_a_500_whose_text_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_environ: Any) -> None:
        raise ValueError(SECRET_TEXT)

    monkeypatch.setattr(application.staff_handler, "request_class", crash)
    status, _, body = ask("/docs/")
    assert (status, json.loads(body)["reason"]) == (500, "internal_error")
    (line,) = (line for line in caplog.records if line.levelno >= logging.ERROR)
    assert vars(line)["exception"] == "ValueError"
    assert SECRET_TEXT not in str(vars(line))


def test_a_server_starts_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting bounds the statements of the process: only while this test runs.
    monkeypatch.setattr(DatabaseWrapper, "is_serving", False)
    messages, sent = iter(["lifespan.startup", "lifespan.shutdown"]), []

    async def receive() -> dict[str, Any]:
        return {"type": next(messages)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    asyncio.run(application({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_another_protocol_is_not_served() -> None:
    with pytest.raises(ValueError, match="websocket"):
        ask("/healthz", type="websocket")
