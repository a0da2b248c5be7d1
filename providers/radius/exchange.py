"""A RADIUS client. pyrad encodes and decodes packets; AGS manages sockets, retransmission and time limits."""

import contextlib
import enum
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from pyrad import packet

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import resolve_addresses

DEADLINE_SHARE = 0.9  # of the deadline, so that the errors of an exchange occur before it
LIMIT = 4096  # maximum bytes of a packet (RFC 2865, section 3)
NAS_PORT_VIRTUAL = struct.pack("!L", 5)  # no physical port (RFC 2865, section 5.41)


class Attribute(enum.IntEnum):
    """The attributes that AGS sends or reads (RFC 2865, section 5; RFC 4372 for CHARGEABLE_USER_IDENTITY)."""

    USER_NAME = 1
    USER_PASSWORD = 2
    CLASS = 25
    NAS_IDENTIFIER = 32
    NAS_PORT_TYPE = 61
    CHARGEABLE_USER_IDENTITY = 89


class ResponseCode(enum.Enum):
    """The codes of responses to an Access-Request (RFC 2865, section 3)."""

    ACCEPTED = packet.AccessAccept
    REJECTED = packet.AccessReject
    CHALLENGED = packet.AccessChallenge


def access_request(
    username: str, password: str, settings: Mapping[str, Any], **attributes: bytes
) -> packet.AuthPacket:
    """Return an Access-Request. `attributes`: further attributes by the names in `Attribute`."""
    # pyrad puts the Message-Authenticator before all other attributes (CVE-2024-3596).
    request = packet.AuthPacket(
        packet.AccessRequest,
        id=secrets.randbelow(256),
        secret=settings["shared_secret"].encode(),
        authenticator=secrets.token_bytes(16),
        message_authenticator=True,
    )
    request[Attribute.USER_NAME] = [username.encode()]
    request[Attribute.USER_PASSWORD] = [request.PwCrypt(password.encode())]
    request[Attribute.NAS_IDENTIFIER] = [settings["nas_identifier"].encode()]
    request[Attribute.NAS_PORT_TYPE] = [NAS_PORT_VIRTUAL]
    for name, value in attributes.items():
        request[Attribute[name]] = [value]
    return request


def exchange(
    request: packet.AuthPacket, settings: Mapping[str, Any]
) -> tuple[ResponseCode, Mapping[int, list[bytes]]]:
    """Return the code and the attributes of the response. Raises `UpstreamUnavailable`.

    Packets without a Message-Authenticator that is valid for this request are ignored.
    """
    ends = time.monotonic() + settings["deadline"] * DEADLINE_SHARE
    attempts = settings["attempts"]
    with contextlib.closing(_connect(settings["host"], settings["port"])) as stream:
        received_invalid = False
        try:
            for attempts_left in range(attempts, 0, -1):
                stream.send(request.RequestPacket())
                ends_at = time.monotonic() + (ends - time.monotonic()) / attempts_left
                for raw in _datagrams(stream, ends_at):
                    if (response := _verify_response(request, raw)) is not None:
                        return ResponseCode(response.code), response
                    received_invalid = True
        except OSError:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None
    if received_invalid:
        raise UpstreamUnavailable(
            UpstreamFailure.CERTIFICATE_UNTRUSTED, "no response has a valid Message-Authenticator"
        )
    raise UpstreamUnavailable(
        UpstreamFailure.TIMEOUT,
        "no response: the server drops requests from unknown clients or with a wrong shared secret",
    )


def _connect(host: str, port: int) -> socket.socket:
    """Return a UDP socket that receives packets from this server only."""
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


def _datagrams(stream: socket.socket, ends_at: float) -> Iterator[bytes]:
    while (seconds := ends_at - time.monotonic()) > 0:
        stream.settimeout(seconds)
        with contextlib.suppress(TimeoutError):
            yield stream.recv(LIMIT + 1)


def _verify_response(request: packet.AuthPacket, raw: bytes) -> packet.AuthPacket | None:
    try:
        response = request.CreateReply(packet=raw)
    except packet.PacketError:
        return None
    is_valid = len(raw) <= LIMIT and request.VerifyReply(response, raw, enforce_ma=True)
    return response if is_valid and response.code in {code.value for code in ResponseCode} else None
