"""Concurrent requests: fairness, and separate results for rows that are written together."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ags.sessions.models import SessionToken
from ags.sessions.tokens.opaque import token_hashes
from tests.support.clients import ClientApp, HeadEnd
from tests.support.live import wait_until_served
from tests.support.operators import create_platform
from tests.support.server import Client, ServerProcess, exchange_bytes
from tests.support.waiting import PATIENCE, wait_until

CONCURRENCY = 24
"""Concurrent connections."""


def test_busy_connections_are_served_fairly(server: ServerProcess) -> None:
    responses = Counter(dict.fromkeys(range(CONCURRENCY), 0))
    done = threading.Event()

    def send_continuously(number: int) -> None:
        client = Client(server.port)
        while not done.is_set():
            assert client.get("/healthz").status_code == 200
            responses[number] += 1
        client.close()

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        running = [pool.submit(send_continuously, number) for number in range(CONCURRENCY)]
        try:
            wait_until(lambda: min(responses.values()) >= 10, f"a connection gets no responses: {responses}")
        finally:
            done.set()
        for thread in running:
            thread.result(PATIENCE)


def test_small_response_is_one_packet(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as sock:
        for _ in range(3):  # on the same connection
            sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = sock.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.endswith(b'\r\n\r\n{"status":"alive"}')


def test_large_response_is_complete(server: ServerProcess) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    (response,) = exchange_bytes(server.port, request)
    assert response.status_code == 200
    assert response.json()["openapi"].startswith("3.")


@pytest.mark.postgresql
def test_concurrent_requests_get_their_own_tokens(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = wait_until_served(server, nagra)
    before = SessionToken.objects.for_tenant(nagra.tenant_id).count()

    def send_request(number: int) -> tuple[str, bytes]:
        account = f"one-of-many-{number}"
        response = head_end.present(nagra.token(OpfAccountId=account))
        assert response.status_code == 200
        return account, token_hashes(response.json()["sessionToken"])[0]

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        received = dict(pool.map(send_request, range(20 * CONCURRENCY)))
    stored = dict(SessionToken.objects.for_tenant(nagra.tenant_id).values_list("account_id", "token_hash"))
    assert {account: bytes(stored[account]) for account in received} == received
    assert SessionToken.objects.for_tenant(nagra.tenant_id).count() == before + len(received)


@pytest.mark.postgresql
def test_invalid_requests_do_not_affect_concurrent_requests(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = wait_until_served(server, nagra)
    replayed = nagra.token(jti="once")
    foreign = nagra.token(OpfTenantId="somebody-else")

    def send_request(token: str) -> tuple[str, int]:
        return token, head_end.present(token).status_code

    valid = [
        nagra.token(OpfAccountId=f"account-{number}", jti=f"jti-{number}")
        for number in range(5 * CONCURRENCY)
    ]
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        received = list(pool.map(send_request, [*valid, *[replayed, foreign] * CONCURRENCY]))
    statuses = Counter(
        (
            ("once", status)
            if token == replayed
            else ("foreign", status)
            if token == foreign
            else ("good", status)
        )
        for token, status in received
    )
    assert statuses == {
        ("good", 200): len(valid),
        ("once", 200): 1,
        ("once", 401): CONCURRENCY - 1,
        ("foreign", 403): CONCURRENCY,
    }


@pytest.mark.postgresql
def test_concurrent_introspections_get_their_own_results(server: ServerProcess, nagra: HeadEnd) -> None:
    head_end = wait_until_served(server, nagra)
    resource_server = replace(create_platform(nagra.tenant_id), client=server)
    wait_until(
        lambda: resource_server.introspect("none").status_code == 200,
        "the resource server cannot authenticate",
    )
    apps = [ClientApp(head_end) for _ in range(8)]
    for number, app in enumerate(apps):
        assert app.sign_on(f"introspected-{number}").status_code == 201
    revoked, *others = apps
    assert resource_server.revoke(revoked.tokens["access_token"]).status_code == 200
    expected = {app.tokens["access_token"]: (True, app.tokens["client_id"]) for app in others}
    expected |= {app.tokens["refresh_token"]: (True, app.tokens["client_id"]) for app in apps}
    expected |= {revoked.tokens["access_token"]: (False, None), "unknown": (False, None)}

    def introspect(token: str) -> tuple[str, tuple[bool, str | None]]:
        result = resource_server.introspect(token, hint="refresh_token").json()
        return token, (result["active"], result.get("client_id"))

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        for token, result in pool.map(introspect, [*expected] * 10):
            assert result == expected[token]
