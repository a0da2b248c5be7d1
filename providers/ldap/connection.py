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
    """Transfers bytes, in plain text until `secure` is called.

    Every operation ends by `ends`, a time of `time.monotonic()`. Raises `UpstreamUnavailable`.
    """

    def __init__(self, stream: socket.socket, ends: float) -> None:
        # Each request goes out at once, and does not wait for the answer to what went before.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = stream
        self._ends = ends
        self._heard = 0
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None

    def left(self) -> float:
        """Return the seconds that are left: a server that sends slowly gets no extra time."""
        return left(self._ends)

    def secure(self, authorities: str, host: str) -> None:
        """Start TLS. The server needs a certificate for `host` that these CA certificates verify."""
        context = _context(authorities)
        tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._step(tls.do_handshake)
        self._tls = tls

    def send(self, data: bytes) -> None:
        """Send all of it."""
        if self._tls is None:
            self._put(data)
            return
        tls = self._tls
        self._step(lambda: tls.write(data))

    def receive(self) -> bytes:
        """Return the next bytes, at least one."""
        if self._tls is None:
            return self._get()
        tls = self._tls
        data = self._step(lambda: tls.read(_CHUNK))
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        return data

    def _step(self, call: Callable[[], _T]) -> _T:
        """Run a TLS operation, and transfer the data that it needs."""
        while True:
            try:
                done = call()
            except ssl.SSLWantReadError:
                self._put(self._outgoing.read())
                self._incoming.write(self._get())
            except ssl.SSLCertVerificationError:
                raise UpstreamUnavailable(UpstreamFailure.CERTIFICATE_UNTRUSTED) from None
            except ssl.SSLError:
                raise UpstreamUnavailable(
                    UpstreamFailure.RESPONSE_INVALID, "it does not speak TLS as it should"
                ) from None
            else:
                self._put(self._outgoing.read())
                return done

    def _put(self, data: bytes) -> None:
        with _outages():
            self._stream.settimeout(self.left())
            self._stream.sendall(data)

    def _get(self) -> bytes:
        with _outages():
            self._stream.settimeout(self.left())
            data = self._stream.recv(_CHUNK)
        self._heard += len(data)
        if not data:
            raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE)
        if self._heard > LIMIT:
            raise UpstreamUnavailable(UpstreamFailure.RESPONSE_TOO_LARGE)
        return data


@contextmanager
def connected(settings: Mapping[str, Any], ends: float) -> Iterator[TLSConnection]:
    """Yield a connection without TLS, and close it at the end."""
    stream = _reach(settings["host"], settings["port"], ends)
    with contextlib.closing(stream):
        yield TLSConnection(stream, ends)


def left(ends: float) -> float:
    """Return the seconds until `ends`. Raises `UpstreamUnavailable(TIMEOUT)` if there are none."""
    seconds = ends - time.monotonic()
    if seconds <= 0:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT)
    return seconds


def _reach(host: str, port: int, ends: float) -> socket.socket:
    *others, last = resolve_addresses(host, port)
    for address in others:
        with contextlib.suppress(OSError):
            return socket.create_connection((address, port), left(ends) / 2)
    with _outages():
        return socket.create_connection((last, port), left(ends))


@contextmanager
def _outages() -> Iterator[None]:
    """Translate the exceptions of sockets."""
    try:
        yield
    except TimeoutError:
        raise UpstreamUnavailable(UpstreamFailure.TIMEOUT) from None
    except OSError:
        raise UpstreamUnavailable(UpstreamFailure.UNREACHABLE) from None


@lru_cache(maxsize=256)
def _context(authorities: str) -> ssl.SSLContext:
    return tls_context(authorities)
