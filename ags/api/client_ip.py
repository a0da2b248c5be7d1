"""The IP address of the client."""

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Any

from django.conf import settings
from django.http import HttpRequest

_WITH_PORT = re.compile(r"\[(?P<ipv6>[^\]]++)\](:\d++)?|(?P<ipv4>[^:]++):\d++")


MAX_LENGTH = len("[0000:0000:0000:0000:0000:ffff:255.255.255.255%]:65535") + 15
"""Characters of the longest address, with a zone. Longer texts are neither parsed nor cached."""


def get_client_address(meta: Mapping[str, Any]) -> str | None:
    """Return the client's IP address without a port, or None on a Unix socket.

    Each trusted proxy (AGS_TRUSTED_PROXIES) appends the address of its peer to X-Forwarded-For. With n
    proxies the client is the n-th entry from the right; the client may have forged the entries before it. If
    that entry is missing or invalid, the address of the peer is returned.
    """
    hops = meta.get("HTTP_X_FORWARDED_FOR", "").split(",")
    trusted: int = settings.AGS_TRUSTED_PROXIES
    text = hops[-trusted].strip() if 0 < trusted <= len(hops) else ""
    forwarded = _parse_address(text) if len(text) <= MAX_LENGTH else None
    return forwarded or _parse_address(meta.get("REMOTE_ADDR", ""))


@lru_cache(maxsize=1024)
def normalize(address: str) -> IPv4Address | IPv6Address:
    """Return the IPv4 address of an IPv4-mapped IPv6 address, and any other unchanged."""
    parsed = ip_address(address)
    return (isinstance(parsed, IPv6Address) and parsed.ipv4_mapped) or parsed


def client_block(address: str) -> str:
    """Return the addresses that belong to one client: an IPv4 address, or a /64 network of IPv6."""
    parsed = normalize(address)
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(IPv6Network((parsed, 64), strict=False))


def lockout_address(request: HttpRequest) -> str | None:
    """Return the address by which django-axes counts failed logins: of a /64 network, the first."""
    address = get_client_address(request.META)
    return None if address is None else client_block(address).partition("/")[0]


def format_client(
    username: str, ip_address: str, user_agent: str, path_info: str, request: HttpRequest
) -> str:
    """Return how django-axes logs a client: without any text that the client sent."""
    return client_block(ip_address) if ip_address else "unknown address"


@lru_cache(maxsize=1024)
def _parse_address(text: str) -> str | None:
    """Return the IP address in `text` without port, brackets and zone; None if it is invalid."""
    if match := _WITH_PORT.fullmatch(text):
        text = match["ipv6"] or match["ipv4"]
    try:
        return str(ip_address(text.partition("%")[0]))
    except ValueError:
        return None
