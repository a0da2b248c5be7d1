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
from ipaddress import ip_network
from typing import Any

import pytest

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import bulkhead, http, request, resolve_addresses, run
from providers.upstream.http import LIMIT, host_and_port
from tests.support.clock import StoppedClock
from tests.support.upstream.authority import authority, untrusted_authority
from tests.support.upstream.deadlines import LONG, SHORT, deadline_for, retry_with_longer_deadlines
from tests.support.upstream.https import HTTPSServer, Reply, as_json
from tests.support.upstream.unusable import closed_port
from tests.support.waiting import PATIENCE, wait_until

TOO_LARGE = UpstreamFailure.RESPONSE_TOO_LARGE
UNREACHABLE = UpstreamFailure.UNREACHABLE
UNTRUSTED = UpstreamFailure.CERTIFICATE_UNTRUSTED

SETTINGS: dict[str, Any] = {"deadline": LONG, "ca_certificates": authority().certificate}
HASTY_SETTINGS = {**SETTINGS, "deadline": SHORT}


def wait_for_free_slots() -> None:
    """Wait for calls that continue after their deadline."""
    wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")


@pytest.fixture(autouse=True)
def _free_slots() -> None:
    wait_for_free_slots()


@pytest.fixture
def server() -> Iterator[HTTPSServer]:
    with HTTPSServer() as running:
        yield running


def get_failure(call: Callable[[], Any]) -> UpstreamFailure:
    with pytest.raises(UpstreamUnavailable) as raised:
        call()
    return raised.value.failure


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


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "ftp://127.0.0.1/", "https:///", "127.0.0.1"])
def test_only_https_urls_are_allowed(url: str) -> None:
    assert get_failure(lambda: request("GET", url, SETTINGS)) is UpstreamFailure.ADDRESS_FORBIDDEN


PRIVATE = [
    "0.0.0.0",
    "0.255.255.255",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.0.23",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.31.196.1",
    "192.52.193.1",
    "192.88.99.1",
    "192.175.48.1",
    "2620:4f:8000::1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::909:909",
    "::ffff:0:909:909",
    "100::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "feff::1",
    "ff02::1",
    "ff0e::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:909:909::",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:168.63.129.16",
    "::ffff:192.88.99.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "64:ff9b:1::909:909",
    "64:ff9b:1:909:9:900::",
    "2620:fe::5efe:a00:1",
    "2620:fe::200:5efe:a00:1",
    "2620:fe::300:5efe:909:909",
    "fe80::5efe:a00:1",
]

PUBLIC = [
    "9.9.9.9",
    "1.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "168.63.129.15",
    "168.63.129.17",
    "172.32.0.0",
    "192.0.1.0",
    "192.88.98.255",
    "198.20.0.0",
    "223.255.255.255",
    "2000::1",
    "2001:200::1",
    "2001:db7::1",
    "2001:db9::1",
    "2003::1",
    "2620:fe::fe",
    "2620:fe::5eff:a00:1",
    "2620:fe::5efe:1",
    "2620:fe::1:5efe:a00:1",
    "3ffe::1",
    "3fff:1000::1",
    "::ffff:9.9.9.9",
    "64:ff9b::909:909",
]


@pytest.fixture
def resolving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every name resolve to these addresses."""

    def resolve(*addresses: str) -> None:
        found = [(0, 0, 0, "", (address, 443)) for address in addresses]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

    return resolve


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_forbidden(address: str, settings: Any, resolving: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = []
    resolving(address)
    assert (
        get_failure(lambda: resolve_addresses("anything.example", 443)) is UpstreamFailure.ADDRESS_FORBIDDEN
    )


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_allowed(address: str, settings: Any, resolving: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = []
    resolving(address)
    assert resolve_addresses("anything.example", 443) == [address]


@pytest.mark.parametrize(
    ("network", "address"),
    [
        ("169.254.169.254/32", "169.254.169.254"),
        ("168.63.129.16/32", "168.63.129.16"),
        ("192.88.99.0/24", "::ffff:192.88.99.1"),
        ("10.1.0.0/16", "64:ff9b::a01:203"),
        ("fd00:ec2::/32", "fd00:ec2::254"),
        ("fe80::/10", "fe80::1%eth0"),
        ("64:ff9b:1::/48", "64:ff9b:1::a01:203"),
        ("2002:a01:203::/48", "2002:a01:203::1"),
        ("2620:fe::/48", "2620:fe::5efe:a00:1"),
        ("3fff::/20", "3fff::1"),
    ],
)
def test_a_private_address_in_the_setting_is_allowed(
    network: str, address: str, settings: Any, resolving: Any
) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network(network)]
    resolving(address)
    assert resolve_addresses("anything.example", 443) == [address]


def test_forbidden_addresses_are_removed_from_several(settings: Any, resolving: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = [ip_network("10.1.0.0/16")]
    resolving("127.0.0.1", "10.1.2.3", "10.2.0.1", "9.9.9.9", "9.9.9.9")
    assert resolve_addresses("anything.example", 443) == ["10.1.2.3", "9.9.9.9"]


def test_an_unresolvable_name_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert get_failure(lambda: resolve_addresses("nobody.example", 443)) is UNREACHABLE


@contextmanager
def black_hole(port: int) -> Iterator[str]:
    """Yield an address on which connecting to the port gets no reply: the backlog of the listener is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        for number in range(2, 12):
            with suppress(OSError):  # another process uses the port
                listener.bind((f"127.0.0.{number}", port))
                break
        listener.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()[0]


def test_an_unresponsive_address_leaves_time_for_the_next(
    server: HTTPSServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.replies["/"] = Reply(200, b"here")
    real = socket.getaddrinfo
    with black_hole(server.port) as hole:
        resolved = [*real(hole, server.port), *real("127.0.0.1", server.port)]
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: resolved if k == {"type": 1} else real(host, *a, **k)
        )
        answer = retry_with_longer_deadlines(
            lambda deadline: request("GET", f"{server.url}/", {**SETTINGS, "deadline": deadline})
        )
        assert answer.body == b"here"


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


def test_nothing_is_sent_to_a_private_address(server: HTTPSServer, settings: Any) -> None:
    settings.AGS_PRIVATE_UPSTREAMS = []
    assert (
        get_failure(lambda: request("GET", f"{server.url}/", SETTINGS)) is UpstreamFailure.ADDRESS_FORBIDDEN
    )
    assert not server.requests


def test_the_deadline_limits_name_resolution(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: released.wait(PATIENCE) and [])
    try:
        assert (
            get_failure(lambda: request("GET", "https://slow.example/", HASTY_SETTINGS))
            is UpstreamFailure.TIMEOUT
        )
    finally:
        released.set()


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
