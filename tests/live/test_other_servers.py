"""AGS on other servers: the ASGI application on uvicorn, and Django's `runserver`."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from contextlib import closing

from ags.sessions.models import SessionToken
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import use_server, wait_until_served
from tests.support.server import Client, Response, ServerProcess, exchange_bytes
from tests.support.staff_login import post_login
from tests.support.waiting import PATIENCE, wait_until


class Uvicorn(ServerProcess):
    """The ASGI application on uvicorn. Only AGS interprets the headers of proxies."""

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--log-level", "warning", "--no-proxy-headers"]
        return [sys.executable, "-m", "uvicorn", "ags.asgi:application", *options]


class RunServer(ServerProcess):
    """Django's development server."""

    def command(self) -> list[str]:
        return [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"]


def posting(head_end: HeadEnd, *lines: str) -> bytes:
    """Return the head of a getSessionToken request with `Connection: close` and additional lines."""
    headers = {"Content-Type": "application/json", "Connection": "close", **head_end.headers()}
    head = [*(f"{name}: {value}" for name, value in headers.items()), *lines]
    return "\r\n".join(["POST /ags/getSessionToken HTTP/1.1", *head, "", ""]).encode()


def status_and_reason(response: Response) -> tuple[int, str]:
    return response.status_code, response.json()["reason"]


def check_staff_pages(server: ServerProcess) -> None:
    """Check the login page and a stylesheet of it."""
    with closing(Client(server.port)) as browser:
        page = browser.get("/admin/login/", headers={"X-Forwarded-Proto": "https"})
        assert page.status_code == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        (style, *_) = re.findall(rb'href="(/static/[^"]+\.css)"', page.content)
        file = browser.get(style.decode(), headers={"X-Forwarded-Proto": "https"})
    assert (file.status_code, file.headers.get_content_type()) == (200, "text/css")
    assert file.content


def check_login(server: ServerProcess, scheme: str) -> None:
    """Check that passwords of staff are verified, and that all of them count."""
    for number in range(5):
        page = post_login(server, "somebody", "wrong", scheme=scheme)
        assert (page.status_code, "Too many" in page.content.decode()) == (
            (200, False) if number < 4 else (429, True)
        )


def test_uvicorn(transactional_db: None, nagra: HeadEnd) -> None:
    with Uvicorn(AGS_LOG_LEVEL="INFO", AGS_TRUSTED_PROXIES="1") as server:
        head_end = wait_until_served(server, nagra)
        stored = SessionToken.objects.for_tenant(nagra.tenant_id).count
        before = stored()
        assert head_end.present(nagra.token()).status_code == 200

        body = json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": nagra.token()}]}).encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:]))
        local, chunked = "Host: localhost", "Transfer-Encoding: chunked"
        (issued,) = exchange_bytes(
            server.port, posting(nagra, local, chunked) + chunks + b"0\r\n\r\n", piece=100
        )
        assert issued.status_code == 200
        assert stored() == before + 2

        # All data is read before the response; otherwise the connection might be reset.
        (announced,) = exchange_bytes(server.port, posting(nagra, local, "Content-Length: 65537"))
        (counted,) = exchange_bytes(server.port, posting(nagra, local, chunked) + b"10001\r\n" + b" " * 65537)
        assert status_and_reason(announced) == status_and_reason(counted) == (413, "body_too_large")
        (without_host,) = exchange_bytes(server.port, posting(nagra, "Content-Length: 0"))
        assert status_and_reason(without_host) == (400, "request_malformed")
        check_staff_pages(server)
        check_login(server, "https")

        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
            sock.sendall(posting(nagra, local, f"Content-Length: {len(body)}") + body[:50])
        wait_until(lambda: "body_unreadable" in server.log, "the disconnect is not logged")
        assert head_end.present(nagra.token()).status_code == 200
        assert stored() == before + 3

        server.terminate()
        assert server.wait() == -signal.SIGTERM  # uvicorn re-raises the signal
        assert "Traceback" not in server.log


def test_runserver(transactional_db: None, nagra: HeadEnd) -> None:
    with RunServer(DEBUG="on") as server:
        wait_until_served(server, nagra)
        app = ClientApp(use_server(server, nagra))
        assert app.sign_on().status_code == 201
        assert app.refresh().status_code == 200
        check_staff_pages(server)
        check_login(server, "http")
        assert "Traceback" not in server.log
