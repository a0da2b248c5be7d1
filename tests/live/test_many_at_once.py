"""Many head-ends at once: nobody is left out, and what is stored together is answered to each for itself."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ags.sessions.models import SessionToken
from ags.sessions.tokens.opaque import hash_token
from tests.conftest import ClientApp, HeadEnd, platform
from tests.live.conftest import warm
from tests.live.server import Client, ServerProcess, exchange
from tests.waiting import PATIENCE, wait_until

MANY = 24
"""Connections at once."""


def test_a_connection_that_never_pauses_leaves_no_other_out(server: ServerProcess) -> None:
    answers = Counter(dict.fromkeys(range(MANY), 0))
    done = threading.Event()

    def never_pause(number: int) -> None:
        client = Client(server.port)
        while not done.is_set():
            assert client.get("/healthz").status_code == 200
            answers[number] += 1
        client.close()

    with ThreadPoolExecutor(MANY) as pool:
        running = [pool.submit(never_pause, number) for number in range(MANY)]
        try:
            wait_until(lambda: min(answers.values()) >= 10, f"a connection is left out: {answers}")
        finally:
            done.set()
        for thread in running:
            thread.result(PATIENCE)


def test_a_small_answer_comes_in_one_piece(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as wire:
        for _ in range(3):  # the thread of the first is still there for the next
            wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = wire.recv(65536)
            assert received.startswith(b"HTTP/1.1 200 ")
            assert received.endswith(b'\r\n\r\n{"status":"alive"}')


def test_an_answer_that_is_larger_than_a_packet_comes_whole(server: ServerProcess) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    (answer,) = exchange(server.port, request)
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.")


@pytest.mark.postgresql
def test_each_of_many_at_once_is_given_its_own_token_and_none_before_its_row(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)
    before = SessionToken.objects.for_tenant(nagra.tenant_id).count()

    def ask(number: int) -> tuple[str, bytes]:
        account = f"one-of-many-{number}"
        answer = head_end.present(nagra.token(OpfAccountId=account))
        assert answer.status_code == 200
        return account, hash_token(answer.json()["sessionToken"])

    with ThreadPoolExecutor(MANY) as pool:
        answered = dict(pool.map(ask, range(20 * MANY)))
    stored = dict(SessionToken.objects.for_tenant(nagra.tenant_id).values_list("account_id", "token_hash"))
    assert {account: bytes(stored[account]) for account in answered} == answered
    assert SessionToken.objects.for_tenant(nagra.tenant_id).count() == before + len(answered)


@pytest.mark.postgresql
def test_of_many_at_once_a_replay_and_a_stranger_are_refused_and_the_others_are_not(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)
    once = nagra.token(jti="once")
    foreign = nagra.token(OpfTenantId="somebody-else")

    def ask(token: str) -> tuple[str, int]:
        return token, head_end.present(token).status_code

    good = [nagra.token(OpfAccountId=f"account-{number}", jti=f"jti-{number}") for number in range(5 * MANY)]
    with ThreadPoolExecutor(MANY) as pool:
        answered = list(pool.map(ask, [*good, *[once, foreign] * MANY]))
    statuses = Counter(
        (("once", status) if token == once else ("foreign", status) if token == foreign else ("good", status))
        for token, status in answered
    )
    assert statuses == {
        ("good", 200): len(good),
        ("once", 200): 1,
        ("once", 401): MANY - 1,
        ("foreign", 403): MANY,
    }


@pytest.mark.postgresql
def test_each_of_many_tokens_that_are_introspected_at_once_is_told_of_itself(
    server: ServerProcess, nagra: HeadEnd
) -> None:
    head_end = warm(server, nagra)
    resource_server = replace(platform(nagra.tenant_id), client=server)  # type: ignore[arg-type]
    wait_until(lambda: resource_server.introspect("none").status_code == 200, "its credentials are unknown")
    apps = [ClientApp(head_end) for _ in range(8)]
    for number, app in enumerate(apps):
        assert app.sign_on(f"introspected-{number}").status_code == 201
    revoked, *others = apps
    assert resource_server.revoke(revoked.tokens["access_token"]).status_code == 200
    expected = {app.tokens["access_token"]: (True, app.tokens["client_id"]) for app in others}
    expected |= {app.tokens["refresh_token"]: (True, app.tokens["client_id"]) for app in apps}
    expected |= {revoked.tokens["access_token"]: (False, None), "unknown": (False, None)}

    def introspect(token: str) -> tuple[str, tuple[bool, str | None]]:
        found = resource_server.introspect(token, hint="refresh_token").json()
        return token, (found["active"], found.get("client_id"))

    with ThreadPoolExecutor(MANY) as pool:
        for token, found in pool.map(introspect, [*expected] * 10):
            assert found == expected[token]
