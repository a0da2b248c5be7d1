"""Closes the network: a test, or code that it calls in its process, that speaks to another machine fails."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

import pytest

# What asks for an address or a name, and the place of that among the arguments of the event.
_PLACES = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0}


def close() -> None:
    """Leave this process loopback and Unix sockets. There is no way back.

    Not seen is what a library in C opens: the connections to PostgreSQL, which may be elsewhere.
    """
    sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...], places: Mapping[str, int] = _PLACES) -> None:
    # An argument, for when the process ends this is called after the variables of the module have gone.
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
        # No OSError, which the code that is tested may have reasons to catch.
        pytest.fail(f"{event}: a test speaks to {address!r}")


def _is_here(host: Any) -> bool:
    if isinstance(host, bytes):
        host = host.decode()
    if host in {None, "", "localhost"}:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name, which somebody else would be asked for
        return False
