"""The addresses that AGS may connect to: staff must not make it call into a private network (SSRF)."""

import socket
from ipaddress import IPv4Address, ip_address, ip_network

from django.conf import settings

from providers.contract import UpstreamFailure, UpstreamUnavailable


def resolve_addresses(host: str, port: int) -> list[str]:
    """Return the allowed addresses (IPv4 or IPv6, as text) of `host`, in the resolver's order.

    Connect to one of these addresses, not to the name: the name could resolve to another address the next
    time (DNS rebinding). Blocks until the resolver responds, so call it inside `run`.

    Raises `UpstreamUnavailable`.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE, "its name could not be resolved") from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in entries))
    allowed = [address for address in addresses if _is_allowed(address)]
    if not allowed:
        raise UpstreamUnavailable(UpstreamFailure.ADDRESS_FORBIDDEN)
    return allowed


_MAPPED, _NAT64 = ip_network("::ffff:0:0/96"), ip_network("64:ff9b::/96")


def _is_allowed(text: str) -> bool:
    address = ip_address(text.partition("%")[0])
    if address in _MAPPED or address in _NAT64:  # RFC 4291, section 2.5.5.2; RFC 6052
        address = IPv4Address(int(address) & 0xFFFFFFFF)
    if any(address in network for network in settings.AGS_PRIVATE_UPSTREAMS):
        return True
    # ISATAP embeds an IPv4 address. Its universal and group bits are ignored (RFC 5214, section 6.1).
    is_isatap = address.version == 6 and int(address) >> 32 & 0xFCFFFFFF == 0x5EFE
    return not is_isatap and not any(address in network for network in _PRIVATE)


_PRIVATE = [
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba Cloud's metadata server
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's WireServer: a public address, in no registry
        "169.254.0.0/16",  # link-local; metadata servers of most clouds
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata server
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # multicast tunnels
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private use
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
        # Only 2000::/3 is assigned as public (RFC 4291, section 2.4). Everything else is private: local and
        # multicast addresses, metadata servers at fd00:ec2::254 and fd20:ce::254, local NAT64 (RFC 8215).
        "::/3",
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which embeds any IPv4 address
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
        "4000::/2",
        "8000::/1",
    )
]
"""The IANA registries of special-purpose IPv4 and IPv6 addresses, and metadata servers of clouds.

A network is listed as a whole even if the registry calls a part of it globally reachable: no operator's
server is in one. `ipaddress.is_global` is not used because its result depends on the version of Python.
"""
