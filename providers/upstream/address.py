"""Which addresses may be spoken to.

A setting that leads into the inside of a network would make AGS the hand of whoever may edit it.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from django.conf import settings

from providers.contract import Outage, Unavailable


def addresses_of(host: str, port: int) -> list[str]:
    """Return the addresses (IPv4 or IPv6, as text) of `host` that may be spoken to, in the resolver's order.

    To connect to one of these, and not to the name, is what keeps a name that changes its mind from leading
    elsewhere. May wait as long as the resolver does: call it inside `within`. Raises `Unavailable`.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unavailable(Outage.AWAY, "its name could not be resolved") from None
    addresses = list(dict.fromkeys(str(one[4][0]) for one in found))
    allowed = [address for address in addresses if _is_allowed(address)]
    if not allowed:
        raise Unavailable(Outage.FORBIDDEN)
    return allowed


def _is_allowed(text: str) -> bool:
    address = _reached(ip_address(text.partition("%")[0]))
    if any(address in network for network in settings.AGS_PRIVATE_UPSTREAMS):
        return True
    # To Python, the site-local ones of old (RFC 3879) are global.
    inside = isinstance(address, IPv6Address) and address.is_site_local
    return address.is_global and not (inside or address.is_multicast or address.is_reserved)


_NAT64 = ip_network("64:ff9b::/96")


def _reached(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An IPv4 address that is written as IPv6, or that a gateway or a tunnel leads to, is itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    tunnelled = address.teredo[1] if address.teredo else address.sixtofour
    return address.ipv4_mapped or tunnelled or address
