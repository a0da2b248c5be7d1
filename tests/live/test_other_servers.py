"""AGS on servers that are not its own: the ASGI application on uvicorn, and Django's `runserver`."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys
from contextlib import closing

from ags.sessions.models import SessionToken
from tests.conftest import ClientApp, HeadEnd
from tests.live.conftest import at, warm
from tests.live.server import Answer, Client, ServerProcess, exchange
from tests.waiting import PATIENCE, wait_until


class Uvicorn(ServerProcess):
    """The ASGI application on uvicorn. It leaves it to AGS which proxies are trusted."""

    def command(self) -> list[str]:
        options = ["--port", str(self.port), "--log-level", "warning", "--no-proxy-headers"]
        return [sys.executable, "-m", "uvicorn", "ags.asgi:application", *options]


class RunServer(ServerProcess):
    """Django's server for development."""

    def command(self) -> list[str]:
        return [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"]


def posting(head_end: HeadEnd, *lines: str) -> bytes:
    """The head of a request for a session token, the last of its connection, with these lines."""
    headers = {"Content-Type": "application/json", "Connection": "close", **head_end.headers()}
    given = [*(f"{name}: {value}" for name, value in headers.items()), *lines]
    return "\r\n".join(["POST /ags/getSessionToken HTTP/1.1", *given, "", ""]).encode()


def reason(answer: Answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["reason"]


def check_pages_of_staff(server: ServerProcess) -> None:
    """Check the page of the login, and a file that it names."""
    with closing(Client(server.port)) as browser:
        page = browser.get("/admin/login/", headers={"X-Forwarded-Proto": "https"})
        assert page.status_code == 200
        assert page.headers["Content-Type"] == "text/html; charset=utf-8"
        (style, *_) = re.findall(rb'href="(/static/[^"]+\.css)"', page.content)
        file = browser.get(style.decode(), headers={"X-Forwarded-Proto": "https"})
    assert (file.status_code, file.headers.get_content_type()) == (200, "text/css")
    assert file.content


def test_the_asgi_application_runs_on_uvicorn(transactional_db: None, nagra: HeadEnd) -> None:
    with Uvicorn(AGS_LOG_LEVEL="INFO", AGS_TRUSTED_PROXIES="1") as server:
        head_end = warm(server, nagra)
        stored = SessionToken.objects.for_tenant(nagra.tenant_id).count
        before = stored()
        assert head_end.present(nagra.token()).status_code == 200

        body = json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": nagra.token()}]}).encode()
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:50], body[50:]))
        local, chunked = "Host: localhost", "Transfer-Encoding: chunked"
        (granted,) = exchange(server.port, posting(nagra, local, chunked) + chunks + b"0\r\n\r\n", piece=100)
        assert granted.status_code == 200
        assert stored() == before + 2

        # Everything that is sent is read before the answer: else its connection might be reset.
        (announced,) = exchange(server.port, posting(nagra, local, "Content-Length: 65537"))
        (counted,) = exchange(server.port, posting(nagra, local, chunked) + b"10001\r\n" + b" " * 65537)
        assert reason(announced) == reason(counted) == (413, "body_too_large")
        (homeless,) = exchange(server.port, posting(nagra, "Content-Length: 0"))
        assert reason(homeless) == (400, "request_malformed")
        check_pages_of_staff(server)

        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as wire:
            wire.sendall(posting(nagra, local, f"Content-Length: {len(body)}") + body[:50])
        wait_until(lambda: "body_unreadable" in server.log, "the end of the connection is not noticed")
        assert head_end.present(nagra.token()).status_code == 200
        assert stored() == before + 3

        server.terminate()
        assert server.wait() == -signal.SIGTERM  # uvicorn ends as the signal would have ended it
        assert "Traceback" not in server.log


def test_runserver_serves_the_api_and_pages_of_staff(transactional_db: None, nagra: HeadEnd) -> None:
    with RunServer(DEBUG="on") as server:
        warm(server, nagra)
        app = ClientApp(at(server, nagra))
        assert app.sign_on().status_code == 201
        assert app.refresh().status_code == 200
        check_pages_of_staff(server)
        assert "Traceback" not in server.log
