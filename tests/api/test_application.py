"""The application as a server calls it: what is raised outside the gate is answered in JSON too."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest

from ags.wsgi import application

ID = "call-4711"
SECRET_TEXT = "mark" + "er-0815"  # as no line of code holds it


def environ(path: str, **changes: Any) -> dict[str, Any]:
    return {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
        "HTTP_X_CORRELATION_ID": ID,
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
        **changes,
    }


class Server:
    """The callable that PEP 3333 calls start_response; it may refuse what it gets first."""

    def __init__(self, *, refuses_first: bool = False) -> None:
        self.refuses = refuses_first

    def __call__(self, status: str, headers: list[tuple[str, str]], failed: Any = None) -> None:
        if self.refuses:
            self.refuses = False
            raise ValueError(SECRET_TEXT)
        self.status, self.headers, self.failed = status, dict(headers), failed


def check(server: Server, body: list[bytes], status: str, reason: str) -> None:
    assert server.status == status
    assert server.headers["Content-Type"] == "application/json"
    assert server.headers["Cache-Control"] == "no-store"
    assert server.headers["x-correlation-id"] == ID
    assert server.headers["Content-Length"] == str(len(body[0]))
    assert json.loads(body[0])["reason"] == reason
    assert SECRET_TEXT.encode() not in body[0]


@pytest.mark.parametrize("path", ["/healthz", "/docs/"])
def test_what_cannot_be_constructed_is_a_400(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Server()
    body = application(environ(path, SCRIPT_NAME=f"\xff{SECRET_TEXT}"), server)
    check(server, body, "400 Bad Request", "request_malformed")
    (line,) = caplog.records
    assert (vars(line)["reason"], vars(line)["status"]) == ("UnicodeDecodeError", 400)


def test_under_the_admin_it_is_a_page() -> None:
    server = Server()
    (body,) = application(environ("/admin/", SCRIPT_NAME=f"\xff{SECRET_TEXT}"), server)
    assert server.status == "400 Bad Request"
    assert server.headers["Content-Type"] == "text/html; charset=utf-8"
    assert server.headers["x-correlation-id"] == ID
    assert server.headers["Content-Length"] == str(len(body))
    assert b">Bad request</h2>" in body
    assert b'<a href="/admin/"' in body
    assert SECRET_TEXT.encode() not in body


def test_the_refusal_of_a_head_has_no_body() -> None:
    server = Server()
    (body,) = application(environ("/healthz", REQUEST_METHOD="HEAD", SCRIPT_NAME="\xff"), server)
    assert body == b""
    assert int(server.headers["Content-Length"]) > 0


def test_a_crash_outside_the_gate_is_a_500_whose_text_is_not_logged(
    db: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(refuses_first=True)
    body = application(environ("/docs/"), server)
    check(server, body, "500 Internal Server Error", "internal_error")
    assert server.failed[0] is ValueError, "the server may have begun an answer"
    (line,) = (line for line in caplog.records if line.levelno >= logging.ERROR)
    assert vars(line)["exception"] == "ValueError"
    assert SECRET_TEXT not in str(vars(line))
