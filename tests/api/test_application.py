"""The ASGI application, called with ASGI messages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import MutableMapping
from typing import Any

import pytest

from ags.api.request.body import MAX_BYTES
from ags.asgi import application
from ags.database.engine.base import DatabaseWrapper
from tests.support.event_loop import make_scope

ID = b"call-4711"
SECRET_TEXT = "mark" + "er-0815"  # not a literal: tracebacks contain source lines
JSON = (b"content-type", b"application/json")
END = {"type": "http.request", "body": b""}

Response = tuple[int, dict[str, str], bytes]


def call(
    path: str, *headers: tuple[bytes, bytes], method: str = "GET", received: Any = (END,), **scope: Any
) -> Response:
    """Call the application with these messages; return status, headers and body."""
    messages, sent = iter(received), []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    defaults = make_scope(method, path, [(b"host", b"localhost"), (b"x-correlation-id", ID), *headers])
    asyncio.run(application({**defaults, **scope}, receive, send))
    head, *parts = sent
    assert not parts[-1].get("more_body")
    lines = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], lines, b"".join(part["body"] for part in parts)


def check_error(response: Response, status: int, reason: str) -> None:
    status_code, headers, body = response
    assert (status_code, json.loads(body)["reason"]) == (status, reason)
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert headers["x-correlation-id"] == ID.decode()
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    assert SECRET_TEXT.encode() not in body


def post(*bodies: bytes, headers: Any = (JSON,), last: Any = None) -> Response:
    """Send a body in these parts, followed by `last`."""
    parts = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    chunked = (b"transfer-encoding", b"chunked")
    tenant = (b"nv-tenant-id", b"nobody")
    service = (b"x-auth-service-id", b"Login")
    received = [*parts, last or END]
    return call("/ags/getSessionToken", chunked, tenant, service, *headers, method="POST", received=received)


AMBIGUOUS = {
    "two hosts": [(b"host", b"localhost")],
    "two lengths": [(b"content-length", b"2"), (b"content-length", b"2")],
    "two content types": [JSON, JSON],
    "length is not a number": [(b"content-length", SECRET_TEXT.encode())],
}


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_ambiguous_headers_are_400(headers: Any) -> None:
    check_error(call("/healthz", *headers), 400, "request_malformed")


@pytest.mark.parametrize("host", [[], [(b"host", b"")]])
def test_missing_host_is_400_in_http_1_1(host: Any) -> None:
    headers = [*host, (b"x-correlation-id", ID)]
    check_error(call("/healthz", headers=headers), 400, "request_malformed")
    assert call("/healthz", headers=headers, http_version="1.0")[0] == 200


def test_body_in_several_messages_is_read() -> None:
    status, _, body = post(b"{", b"", b"}")
    assert (status, json.loads(body)["reason"]) == (400, "parameters_malformed")


def test_reading_a_large_body_stops_at_the_limit() -> None:
    check_error(post(b" " * MAX_BYTES, b" ", last={"type": "never"}), 413, "body_too_large")


def test_disconnect_during_the_body_is_400(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    check_error(post(b"{}", last={"type": "http.disconnect"}), 400, "request_malformed")
    (line,) = caplog.records
    assert vars(line)["reason"] == "body_unreadable"


def test_request_rejected_by_the_server_is_a_page_for_browsers_and_json_elsewhere() -> None:
    error = {"ags.refusal": {"status": 431}}
    check_error(call("/nowhere", extensions=error), 431, "headers_too_large")
    status, headers, body = call("/admin/", extensions=error)
    assert (status, headers["content-type"]) == (431, "text/html; charset=utf-8")
    assert b"<h2" in body
    status, headers, body = call("/explanations/1-1.a", extensions=error)
    assert (status, headers["content-type"]) == (431, "text/html; charset=utf-8")
    assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
    assert b"The headers are too large or too many." in body


def test_error_response_to_head_has_no_body() -> None:
    _, headers, body = call("/healthz", (b"host", b"localhost"), method="HEAD")
    assert body == b""
    assert int(headers["content-length"]) > 0


def test_file_is_sent_in_blocks(db: None) -> None:
    status, headers, body = call("/static/admin/css/base.css")
    assert status == 200
    assert headers["content-length"] == str(len(body))
    assert len(body) > 4096


def test_message_of_an_unexpected_exception_is_not_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_environ: Any) -> None:
        raise ValueError(SECRET_TEXT)

    monkeypatch.setattr(application.staff_handler, "request_class", crash)
    status, _, body = call("/docs/")
    assert (status, json.loads(body)["reason"]) == (500, "internal_error")
    crash_line, request_line = (line for line in caplog.records if line.levelno >= logging.ERROR)
    assert vars(crash_line)["exception"] == "ValueError"
    assert SECRET_TEXT not in str(vars(crash_line)) + str(vars(request_line))


def test_lifespan_starts_and_stops_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    # `start` sets this permanently: undo it after the test.
    monkeypatch.setattr(DatabaseWrapper, "is_serving", False)
    messages, sent = iter(["lifespan.startup", "lifespan.shutdown"]), []

    async def receive() -> dict[str, Any]:
        return {"type": next(messages)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message["type"])

    asyncio.run(application({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_other_scope_types_raise_value_error() -> None:
    with pytest.raises(ValueError, match="websocket"):
        call("/healthz", type="websocket")
