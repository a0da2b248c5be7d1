"""Requests to upstreams: failures, deadlines, concurrency limits and forbidden addresses."""

from __future__ import annotations

import gc
import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from providers.contract import UpstreamFailure
from providers.upstream import bulkhead, http, request, run
from providers.upstream.http import LIMIT, host_and_port
from tests.support.clock import StoppedClock
from tests.support.upstream.authority import authority, untrusted_authority
from tests.support.upstream.deadlines import LONG, deadline_for
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.requests import (
    HASTY_SETTINGS,
    SETTINGS,
    UNREACHABLE,
    get_failure,
    wait_for_free_slots,
)
from tests.support.upstream.unusable import closed_port
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("free_slots")

TOO_LARGE = UpstreamFailure.RESPONSE_TOO_LARGE
UNTRUSTED = UpstreamFailure.CERTIFICATE_UNTRUSTED


def test_request_sends_all_parts_and_returns_the_response(server: HTTPSServer) -> None:
    server.replies["/a"] = as_json({"b": 1}, 201, **{"X-Other": "c"})
    answer = request("POST", f"{server.url}/a?q=1", SETTINGS, headers={"Authorization": "x"}, body=b"body")
    assert (answer.status, answer.body, answer.headers["x-other"]) == (201, b'{"b": 1}', "c")
    (asked,) = server.requests
    assert (asked.method, asked.path, asked.body) == ("POST", "/a?q=1", b"body")
    assert asked.headers["authorization"] == "x"
    assert asked.headers["host"] == server.address


CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    "reply", [Reply(), Reply(200, b"body"), Reply(200, b"4\r\nbody\r\n0\r\n\r\n", CHUNKED)]
)
def test_the_connection_is_reused(server: HTTPSServer, monkeypatch: pytest.MonkeyPatch, reply: Reply) -> None:
    monkeypatch.setattr(http, "IDLE", LONG)
    # Other CA certificates, so that a new pool with this IDLE is created.
    its_own = {**SETTINGS, "ca_certificates": f"{authority().certificate}\n"}
    server.replies["/"] = reply
    for _ in range(3):
        request("GET", f"{server.url}/", its_own)
    assert len(server.connections) == 1
    http._pool(its_own["ca_certificates"]).close()


def drip() -> Iterator[bytes]:
    while True:
        time.sleep(0.05)
        yield b"x"


BAD = {
    "redirects": (Reply(302, headers={"Location": "/elsewhere"}), UpstreamFailure.RESPONSE_INVALID),
    "redirects permanently": (
        Reply(308, headers={"Location": "https://127.0.0.1/"}),
        UpstreamFailure.RESPONSE_INVALID,
    ),
    "compresses": (Reply(200, b"x", {"Content-Encoding": "gzip"}), UpstreamFailure.RESPONSE_INVALID),
    "is huge": (Reply(200, b"x" * (LIMIT + 1)), TOO_LARGE),
    "never ends": (Reply(200, itertools.repeat(b"x" * 65536)), TOO_LARGE),
    "has huge headers": (Reply(200, b"", {"X": "x" * 200_000}), UpstreamFailure.RESPONSE_INVALID),
    "sends nothing": (Reply(200, b"", wait=threading.Event()), UpstreamFailure.TIMEOUT),
    "sends single bytes": (Reply(200, drip()), UpstreamFailure.TIMEOUT),
}


@pytest.mark.parametrize("case", BAD)
def test_a_misbehaving_upstream_has_a_specific_failure(server: HTTPSServer, case: str) -> None:
    server.replies["/"], expected = BAD[case]
    settings = {**SETTINGS, "deadline": deadline_for(expected)}
    assert get_failure(lambda: request("GET", f"{server.url}/", settings)) is expected
    wait_for_free_slots()  # even if the upstream continues to send
    asked = [asked.path for asked in server.requests]
    assert asked == ["/"] or (expected is UpstreamFailure.TIMEOUT and not asked), (
        "one request is sent, and no redirect is followed"
    )


def test_a_response_may_have_exactly_the_limit(server: HTTPSServer) -> None:
    server.replies["/"] = Reply(200, b"x" * 100)
    assert len(request("GET", f"{server.url}/", SETTINGS, limit=100).body) == 100
    assert get_failure(lambda: request("GET", f"{server.url}/", SETTINGS, limit=99)) is TOO_LARGE


EMPTY = {"Content-Length": "0"}
TRAILING_DATA = {
    "a whole response": Reply(200, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother", EMPTY),
    "the beginning of a response": Reply(200, b"HTTP/1.1 200 OK\r\nX: ", EMPTY),
    "the rest of a body": Reply(200, b"x", EMPTY),
    "data after chunks": Reply(200, b"1\r\nx\r\n0\r\n\r\nx", CHUNKED),
}


@pytest.mark.parametrize("more", TRAILING_DATA)
def test_data_after_a_response_is_not_read_as_the_next_response(server: HTTPSServer, more: str) -> None:
    server.replies["/"] = TRAILING_DATA[more]
    server.replies["/next"] = Reply(200, b"its own")
    assert get_failure(lambda: request("GET", f"{server.url}/", SETTINGS)) is UpstreamFailure.RESPONSE_INVALID
    assert request("GET", f"{server.url}/next", SETTINGS).body == b"its own"


def test_a_certificate_of_another_ca_is_not_trusted() -> None:
    with HTTPSServer(untrusted_authority()) as server:
        assert get_failure(lambda: request("GET", f"{server.url}/", SETTINGS)) is UNTRUSTED
        system = {**SETTINGS, "ca_certificates": ""}
        assert get_failure(lambda: request("GET", f"{server.url}/", system)) is UNTRUSTED
        assert not server.requests


def test_a_certificate_for_another_name_is_not_trusted(server: HTTPSServer) -> None:
    url = f"https://127.0.0.2:{server.port}/"
    with socket.create_server(("127.0.0.2", 0)) as other:
        other.settimeout(PATIENCE)
        port = other.getsockname()[1]
        threading.Thread(target=relay, args=[other, server.port], daemon=True).start()
        assert get_failure(lambda: request("GET", url.replace(str(server.port), str(port)), SETTINGS)) is (
            UNTRUSTED
        )
    assert not server.requests


def relay(listener: socket.socket, port: int) -> None:
    """Forward one connection to a port."""
    client, _ = listener.accept()
    client.settimeout(PATIENCE)
    wire = socket.create_connection(("127.0.0.1", port), PATIENCE)

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    back = threading.Thread(target=pump, args=[wire, client], daemon=True)
    back.start()
    pump(client, wire)
    back.join(PATIENCE)
    client.close()
    wire.close()


@contextmanager
def plain_server(words: bytes) -> Iterator[str]:
    """Run a server without TLS that sends `words` on each connection; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                kept.append(client)
                with suppress(OSError):  # the client may have closed the connection
                    client.sendall(words)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
            for client in kept:
                client.close()


def test_failures_without_a_tls_server() -> None:
    with plain_server(b"HTTP/1.1 200 OK\r\n\r\n") as url:
        assert get_failure(lambda: request("GET", url, SETTINGS)) is UpstreamFailure.RESPONSE_INVALID
    with plain_server(b"") as url:
        assert get_failure(lambda: request("GET", url, HASTY_SETTINGS)) is UpstreamFailure.TIMEOUT
    with closed_port() as port:
        assert get_failure(lambda: request("GET", f"https://127.0.0.1:{port}/", SETTINGS)) is UNREACHABLE


def test_a_connection_is_closed_if_the_deadline_passes_before_tls(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = StoppedClock()
    monkeypatch.setattr(http, "time", clock)

    def stall(record: logging.LogRecord) -> bool:
        if record.getMessage().startswith("start_tls.started"):
            clock.ahead = LONG
        return True

    log = "httpcore2.connection"
    caplog.set_level(logging.DEBUG, log)
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        # httpcore2 logs a line between connecting and TLS: the deadline passes there.
        logging.getLogger(log).addFilter(stall)
        stack.callback(logging.getLogger(log).removeFilter, stall)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
        assert get_failure(lambda: request("GET", url, SETTINGS)) is UpstreamFailure.TIMEOUT
        listener.settimeout(PATIENCE)
        wire = stack.enter_context(listener.accept()[0])
        wire.settimeout(PATIENCE)
        assert wire.recv(1) == b"", "the connection is closed"
    gc.collect()  # otherwise an unclosed socket would fail a later test


def test_calls_above_the_limits_fail_immediately() -> None:
    released, waiting = threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        waiting.release()
        released.wait(PATIENCE)

    def wait_for(upstream: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: run(LONG, upstream, hang))
        thread.start()
        assert waiting.acquire(timeout=PATIENCE)
        return thread

    try:
        threads = [wait_for("one:443") for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM)]
        assert get_failure(lambda: run(LONG, "one:443", hang)) is UpstreamFailure.OVERLOADED
        threads += [
            wait_for("two:443")
            for _ in range(bulkhead.MAX_CONCURRENT_CALLS - bulkhead.MAX_CALLS_PER_UPSTREAM)
        ]
        assert get_failure(lambda: run(LONG, "three:443", hang)) is UpstreamFailure.OVERLOADED
    finally:
        released.set()
    for thread in threads:
        thread.join(PATIENCE)
    wait_for_free_slots()
    assert run(LONG, "one:443", lambda: 5) == 5


def test_a_slot_is_released_if_no_thread_can_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(call: Callable[[], Any]) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(bulkhead.foreground._threads, "submit", refuse)
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM):
            assert get_failure(lambda: run(LONG, "one:443", bool)) is UpstreamFailure.OVERLOADED
    assert run(LONG, "one:443", lambda: 5) == 5


def test_background_and_foreground_have_separate_slots(server: HTTPSServer) -> None:
    server.replies["/"] = Reply()
    with ExitStack() as full:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM):
            full.enter_context(bulkhead.foreground.slot(server.address))
        assert get_failure(lambda: request("GET", f"{server.url}/", SETTINGS)) is UpstreamFailure.OVERLOADED
        assert request("GET", f"{server.url}/", SETTINGS, bulkhead=bulkhead.background).status == 200


@pytest.mark.parametrize("url", ["https://Login.example/a", "https://login.example:443/b"])
def test_host_and_port_normalizes_the_url(url: str) -> None:
    assert host_and_port(url) == "login.example:443"


def test_a_call_keeps_its_slot_after_its_deadline_until_it_ends() -> None:
    released = threading.Event()
    try:
        for _ in range(bulkhead.MAX_CALLS_PER_UPSTREAM):
            assert (
                get_failure(lambda: run(0.01, "one:443", lambda: released.wait(PATIENCE)))
                is UpstreamFailure.TIMEOUT
            )
        assert get_failure(lambda: run(LONG, "one:443", bool)) is UpstreamFailure.OVERLOADED
    finally:
        released.set()
    wait_for_free_slots()
    assert run(LONG, "one:443", lambda: 5) == 5
