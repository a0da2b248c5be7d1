"""Addresses of upstreams: private addresses, several addresses, and name resolution."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_network
from typing import Any

import pytest

from providers.contract import UpstreamFailure
from providers.upstream import request, resolve_addresses
from tests.support.upstream.deadlines import retry_with_longer_deadlines
from tests.support.upstream.https import HTTPSServer, Reply
from tests.support.upstream.requests import HASTY_SETTINGS, SETTINGS, UNREACHABLE, get_failure
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("free_slots")


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
