"""Asking a RADIUS server: one request, sent a few times, and an answer that proves to know the shared secret.

The library makes and reads packets; sockets and time are ours.
"""

from __future__ import annotations

import contextlib
import enum
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pyrad.packet import (
    AccessAccept,
    AccessChallenge,
    AccessReject,
    AccessRequest,
    AuthPacket,
    PacketError,
)

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import resolve_addresses

SHARE = 0.9
"""The share of the deadline for one exchange: errors are then known before the deadline."""

LIMIT = 4096
"""Maximum bytes of a packet (RFC 2865, section 3)."""

VIRTUAL = struct.pack("!L", 5)
"""The NAS-Port-Type of a user without a physical port (RFC 2865, section 5.41)."""


class Attribute(enum.IntEnum):
    """The attributes that AGS sends or reads, by their numbers (RFC 2865, and RFC 4372 for the last)."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CLASS = 25
    NAS_IDENTIFIER = 32
    NAS_PORT_TYPE = 61
    CHARGEABLE_USER_IDENTITY = 89


class Verdict(enum.Enum):
    """The response of a server. AGS does not support challenges."""

    ACCEPTED = AccessAccept
    REJECTED = AccessReject
    CHALLENGED = AccessChallenge


def access_request(username: str, password: str, settings: Mapping[str, Any], **more: bytes) -> AuthPacket:
    """Return an Access-Request. `more`: further attributes by their names."""
    # The library puts a Message-Authenticator before all other attributes (CVE-2024-3596).
    request = AuthPacket(
        AccessRequest,
        id=secrets.randbelow(256),
        secret=settings["shared_secret"].encode(),
        authenticator=secrets.token_bytes(16),
        message_authenticator=True,
    )
    request[Attribute.USER_NAME] = [username.encode()]
    request[Attribute.USER_PASSWORD] = [request.PwCrypt(password.encode())]
    request[Attribute.NAS_IDENTIFIER] = [settings["nas_identifier"].encode()]
    request[Attribute.NAS_PORT_TYPE] = [VIRTUAL]
    for name, value in more.items():
        request[Attribute[name]] = [value]
    return request


def exchange(request: AuthPacket, settings: Mapping[str, Any]) -> tuple[Verdict, Mapping[int, list[bytes]]]:
    """Return the response of the server and its attributes. Raises `UpstreamUnavailable`.

    Whatever does not carry a Message-Authenticator that is right, for this request, is thrown away.
    """
    ends = time.monotonic() + settings["deadline"] * SHARE
    attempts = settings["attempts"]
    with contextlib.closing(_reach(settings["host"], settings["port"])) as stream:
        heard = False
        try:
            for left in range(attempts, 0, -1):
                stream.send(request.RequestPacket())
                until = time.monotonic() + (ends - time.monotonic()) / left
                for raw in _datagrams(stream, until):
                    if (answer := _proven(request, raw)) is not None:
                        return Verdict(answer.code), answer
                    heard = True
        except OSError:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None
    if heard:
        raise UpstreamUnavailable(
            UpstreamFailure.CERTIFICATE_UNTRUSTED, "no response has a valid Message-Authenticator"
        )
    raise UpstreamUnavailable(
        UpstreamFailure.TIMEOUT,
        "no answer: the server drops requests from unknown clients or with a wrong shared secret",
    )


def _reach(host: str, port: int) -> socket.socket:
    """Return a socket that receives packets of this server only."""
    for address in resolve_addresses(host, port):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        stream = socket.socket(family, socket.SOCK_DGRAM)
        try:
            stream.connect((address, port))
        except OSError:
            stream.close()
        else:
            return stream
    raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)


def _datagrams(stream: socket.socket, until: float) -> Iterator[bytes]:
    """Yield the packets that arrive until `ends`."""
    while (seconds := until - time.monotonic()) > 0:
        stream.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            yield stream.recv(LIMIT + 1)


def _proven(request: AuthPacket, raw: bytes) -> AuthPacket | None:
    """Return the response if it matches the request and is signed with the shared secret."""
    try:
        answer = request.CreateReply(packet=raw)
    except PacketError:
        return None
    is_right = len(raw) <= LIMIT and request.VerifyReply(answer, raw, enforce_ma=True)
    return answer if is_right and answer.code in {one.value for one in Verdict} else None
