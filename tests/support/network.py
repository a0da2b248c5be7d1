"""Closes the network: a test fails if it, or code in its process, connects to another machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest

# The events that use an address or a name, and its index among their arguments.
_PLACES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}


def close_network() -> None:
    """Restrict this process to loopback and Unix sockets, permanently.

    Connections that a C library opens are not restricted: PostgreSQL may run on another machine.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...], places: Mapping[str, int] = _PLACES) -> None:
    # An argument, because at the end of the process the hook outlives the variables of the module.
    place = places.get(event)
    if place is None:
        return
    address = arguments[place]
    if isinstance(address, tuple):
        host = address[0]
    elif event == "socket.getaddrinfo":
        host = address
    else:
        return  # the path of a Unix socket
    if not _is_here(host):
        # Not an OSError, which the tested code may catch.
        pytest.fail(f"{event}: a test connects to {address!r}")


def _is_here(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in {None, "", "localhost"}:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a host name, which another machine would resolve
        return False
