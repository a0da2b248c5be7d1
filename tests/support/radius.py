"""The provider `radius`: settings and results."""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from providers.contract import FailureReason, Identity, KeyRing
from providers.registry import strategies
from providers.upstream import bulkhead
from tenants.services.settings import clean_settings
from tests.support.upstream.deadlines import LONG
from tests.support.upstream.freeradius import SECRET, settings_at
from tests.support.waiting import PATIENCE, wait_until

RING = KeyRing("nagra", {})


def cleaned(settings: dict[str, Any], deadline: float = LONG) -> Any:
    return {**clean_settings(strategies()["radius"], settings)[1], "deadline": deadline}


def verify(username: str, password: str, settings: dict[str, Any], deadline: float = LONG) -> Identity:
    parameters = {"Username": username, "Password": password}
    identity = strategies()["radius"].verify(parameters, cleaned(settings, deadline), RING)
    assert isinstance(identity, Identity)
    return identity


UNKNOWN = FailureReason.CREDENTIAL_UNKNOWN


Response = Callable[[bytes], list[bytes]]


@contextmanager
def fake_radius_server(
    respond: Response, *, from_its_port: bool = True
) -> Iterator[tuple[dict[str, Any], list[bytes]]]:
    """Run a server that sends datagrams for each request; yield the settings and the received requests.

    The list of requests is complete when the context ends.
    """
    requests: list[bytes] = []
    with _socket() as listener, _socket() as other:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(0.02)
        ended = threading.Event()

        def serve() -> None:
            while True:
                try:
                    request, caller = listener.recvfrom(8192)
                except TimeoutError:
                    if ended.is_set():
                        return
                    continue
                requests.append(request)
                for datagram in respond(request):
                    (listener if from_its_port else other).sendto(datagram, caller)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield settings_at(listener.getsockname()[1]), requests
        finally:
            wait_until(lambda: not bulkhead.foreground._taken, "a call does not end")
            ended.set()
            thread.join(PATIENCE)


def _socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def build_packet(
    request: bytes,
    code: int = 2,
    *,
    identifier: int | None = None,
    attributes: bytes = b"",
    proof: bytes | None = None,
    secret: bytes = SECRET.encode(),
) -> bytes:
    """Return a response to the request (RFC 2865, section 3; RFC 3579, section 3.2)."""
    number = request[1] if identifier is None else identifier
    placed = b"\x50\x12" + bytes(16) if proof is None else proof
    length = 20 + len(placed) + len(attributes)
    head = struct.pack("!BBH", code, number, length)
    if proof is None:
        digest = hmac.new(secret, head + request[4:20] + placed + attributes, "md5").digest()
        placed = b"\x50\x12" + digest
    body = placed + attributes
    return head + hashlib.md5(head + request[4:20] + body + secret).digest() + body


def get_parameters(username: str, password: str) -> dict[str, Any]:
    return {"parameters": [{"name": "username", "value": username}, {"name": "password", "value": password}]}
