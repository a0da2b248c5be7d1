"""The connection to a directory: to an allowed address, with TLS, within a deadline."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypeVar

from providers.contract import UpstreamFailure, UpstreamUnavailable
from providers.upstream import resolve_addresses, tls_context

LIMIT = 64 * 1024
"""Maximum bytes that a directory may send on one connection."""

_CHUNK = 16 * 1024

_T = TypeVar("_T")


class TLSConnection:
    """A TCP connection, unencrypted until `secure` is called.

    Every operation ends by `ends`, a time of `time.monotonic()`. Raises `UpstreamUnavailable`.
    """

    def __init__(self, stream: socket.socket, ends: float) -> None:
        # Send each request immediately, without waiting for an acknowledgement of the previous one.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = stream
        self._ends = ends
        self._received = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    def remaining_seconds(self) -> float:
        """Return the seconds until the deadline. Raises `UpstreamUnavailable(TIMEOUT)` if it has passed."""
        return remaining_seconds(self._ends)

    def secure(self, ca_certificates: str, host: str) -> None:
        """Perform the TLS handshake. The server needs a certificate for `host` from one of these CAs."""
        context = _context(ca_certificates)
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._run_tls(tls.do_handshake)
        self._tls = tls

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        if self._tls is None:
            self._send_raw(data)
            return
        tls = self._tls
        self._run_tls(lambda: tls.write(data))

    def receive(self) -> bytes:
        """Receive at least one byte."""
        if self._tls is None:
            return self._receive_raw()
        tls = self._tls
        data = self._run_tls(lambda: tls.read(_CHUNK))
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        return data

    def _run_tls(self, call: Callable[[], _T]) -> _T:
        """Run a TLS operation, sending and receiving the data that it needs."""
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                self._send_raw(self._outgoing.read())
                self._incoming.write(self._receive_raw())
            except ssl.SSLCertVerificationError:
                raise UpstreamUnavailable(UpstreamFailure.CERTIFICATE_UNTRUSTED) from None
            except ssl.SSLError:
                raise UpstreamUnavailable(
                    UpstreamFailure.RESPONSE_INVALID, "its TLS handshake is invalid"
                ) from None
            else:
                self._send_raw(self._outgoing.read())
                return result

    def _send_raw(self, data: bytes) -> None:
        with _translate_errors():
            self._stream.settimeout(self.remaining_seconds())
            self._stream.sendall(data)

    def _receive_raw(self) -> bytes:
        with _translate_errors():
            self._stream.settimeout(self.remaining_seconds())
            data = self._stream.recv(_CHUNK)
        self._received += len(data)
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        if self._received > LIMIT:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_TOO_LARGE)
        return data


@contextmanager
def open_connection(settings: Mapping[str, Any], ends: float) -> Iterator[TLSConnection]:
    """Yield an unencrypted connection, and close it at the end."""
    stream = _connect(settings["host"], settings["port"], ends)
    with contextlib.closing(stream):
        yield TLSConnection(stream, ends)


def remaining_seconds(ends: float) -> float:
    """Return the seconds until `ends`. Raises `UpstreamUnavailable(TIMEOUT)` if it has passed."""
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT)
    return seconds


def _connect(host: str, port: int, ends: float) -> socket.socket:
    *others, last = resolve_addresses(host, port)
    for address in others:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), remaining_seconds(ends) / 2)
    with _translate_errors():
        return socket.create_connection((last, port), remaining_seconds(ends))


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Convert the exceptions of sockets."""
    try:
        yield
    except TimeoutError:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None
    except OSError:
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None


@lru_cache(maxsize=256)
def _context(ca_certificates: str) -> ssl.SSLContext:
    return tls_context(ca_certificates)
