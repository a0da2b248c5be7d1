"""No test can speak to another machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest


def connect(family: socket.AddressFamily, address: tuple[str, int]) -> None:
    with socket.socket(family) as its:
        its.settimeout(1)
        its.connect(address)


def send(address: tuple[str, int]) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as its:
        its.sendto(b"x", address)


ELSEWHERE: dict[str, Callable[[], object]] = {
    "an address": lambda: connect(socket.AF_INET, ("192.0.2.1", 80)),
    "an address of IPv6": lambda: connect(socket.AF_INET6, ("2001:db8::1", 80)),
    "an address of the local network": lambda: connect(socket.AF_INET, ("10.0.0.1", 80)),
    "a datagram": lambda: send(("192.0.2.1", 53)),
    "a name": lambda: socket.create_connection(("ags.example", 80), timeout=1),
    "a page": lambda: urlopen("http://ags.example/", timeout=1),
}


@pytest.mark.parametrize("speak", ELSEWHERE.values(), ids=ELSEWHERE)
def test_a_test_that_speaks_to_another_machine_fails_whatever_it_catches(speak: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="a test connects to"), suppress(Exception):
        speak()


def test_so_does_a_thread_of_it() -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(pytest.fail.Exception):
        pool.submit(ELSEWHERE["an address"]).result()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "::1"])
def test_this_machine_is_asked(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as its:
        assert its.connect_ex((host, 1)) != 0, "nobody listens there"


def test_so_is_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(path)
        server.listen()
        client.connect(path)
