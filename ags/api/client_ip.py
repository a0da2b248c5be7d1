"""The address of a caller, behind as many proxies as the deployment says there are."""

from __future__ import annotations

import ipaddress
import re

from django.conf import settings
from django.http import HttpRequest

_WITH_PORT = re.compile(r"\[(?P<ipv6>[^\]]++)\](:\d++)?|(?P<ipv4>[^:]++):\d++")


def client_ip(request: HttpRequest) -> str | None:
    """Return the caller's address, without a port; None if there is none, as on a Unix socket.

    Each trusted proxy appends the address it heard from to X-Forwarded-For, so with n of them the caller is
    the n-th from the right; whatever stands left of it the caller may have written himself. Where that is no
    address, or missing, the peer stands in.
    """
    hops = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    trusted: int = settings.AGS_TRUSTED_PROXIES
    forwarded = _address(hops[-trusted]) if 0 < trusted <= len(hops) else None
    return forwarded or _address(request.META.get("REMOTE_ADDR", ""))


def for_log(username: str, ip_address: str, user_agent: str, path_info: str, request: HttpRequest) -> str:
    """Return by what name django-axes logs a caller: no word of its own."""
    return ip_address or "unknown address"


def _address(text: str) -> str | None:
    """Return the IP address in `text`, in the form in which it is stored: no port, no brackets, no zone."""
    text = text.strip()
    if found := _WITH_PORT.fullmatch(text):
        text = found["ipv6"] or found["ipv4"]
    try:
        return str(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return None
