"""Requests to running servers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.clients import SERVICE, HeadEnd
from tests.support.server import ServerProcess
from tests.support.waiting import PATIENCE, wait_until


def get_server(servers: dict[str, ServerProcess], name: str, **changes: str) -> ServerProcess:
    """Return the server of that name; start it if necessary."""
    if name not in servers:
        servers[name] = ServerProcess(**changes).__enter__()
    return servers[name]


def use_server(server: ServerProcess, head_end: HeadEnd) -> HeadEnd:
    """Return a copy of the head-end that uses this server."""
    return replace(head_end, client=server)


def wait_until_served(server: ServerProcess, head_end: HeadEnd) -> HeadEnd:
    """Wait until the server serves the tenant; return a head-end that uses this server."""
    here = use_server(server, head_end)
    wait_until(
        lambda: here.present(here.token()).status_code == 200,
        f"{SERVICE} is not served by {server.url}",
    )
    return here


@dataclass(frozen=True)
class ForwardingProxy:
    """A client whose requests come from an address. Refusals of each address are limited separately."""

    client: Any
    address: str

    def get(self, path: str, *, headers: dict[str, str] | None = None) -> Any:
        return self.client.get(path, headers=self._add_address(headers))

    def generic(self, *args: Any, headers: dict[str, str] | None = None) -> Any:
        return self.client.generic(*args, headers=self._add_address(headers))

    def _add_address(self, headers: dict[str, str] | None) -> dict[str, str]:
        return {**(headers or {}), "x-forwarded-for": self.address}


TOKEN = b"POST /ags/getSessionToken HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"


def token_request_head(head_end: HeadEnd, *lines: str, service: str = SERVICE) -> bytes:
    """Return the head of a valid getSessionToken request with additional header lines."""
    all_lines = [f"nv-tenant-id: {head_end.tenant_id}", f"x-auth-service-id: {service}", *lines]
    return TOKEN + JSON + "".join(f"{line}\r\n" for line in all_lines).encode() + b"\r\n"


def token_request_body(token: str) -> bytes:
    return json.dumps({"parameters": [{"name": "OperatorAuthToken", "value": token}]}).encode()


CREATE_OPERATOR = """
from tests.support.operators import create_operator
create_operator('nagra', bytes(range(1, 33)), is_limited=False)
"""

Servers = tuple[ServerProcess, ServerProcess]


@dataclass
class ResponseLog:
    """Responses: server, time of the request, status and reason."""

    responses: list[tuple[ServerProcess, float, int, str | None]] = field(default_factory=list)

    def count(self, server: ServerProcess, *, after: float) -> Counter[tuple[int, str | None]]:
        """Count the responses of a server to requests sent after that time."""
        return Counter(
            (status, reason)
            for seen_server, sent, status, reason in self.responses.copy()
            if seen_server is server and sent > after
        )


@contextmanager
def continuous_requests(servers: Servers, head_end: HeadEnd) -> Iterator[ResponseLog]:
    """Send valid tokens to both servers continuously, from three threads each."""
    log = ResponseLog()
    stop = threading.Event()

    def present(server: ServerProcess) -> None:
        here = replace(head_end, client=server.client())
        while not stop.is_set():
            token = here.token()
            sent = time.monotonic()
            response = here.present(token)
            log.responses.append((server, sent, response.status_code, response.json().get("reason")))

    with ThreadPoolExecutor(6) as pool:
        running = [pool.submit(present, server) for server in servers for _ in range(3)]
        try:
            yield log
        finally:
            stop.set()
        for thread in running:
            thread.result(PATIENCE)
